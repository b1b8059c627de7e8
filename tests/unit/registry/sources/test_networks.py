"""Which machines may be connected to."""

import ipaddress
import socket
from typing import Any

import pytest

from services.registry.sources import networks
from services.registry.sources.addresses import AddressRefused
from tests.support.url_corpus import REFUSED_HOSTS


def answers(*ips: str) -> networks.Resolver:
    """Returns a resolver that knows one answer."""

    def resolver(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

    return resolver


@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_a_name_of_an_inner_machine_is_refused(host: str) -> None:
    """Whatever a name server says: one address that is not public refuses the name."""
    with pytest.raises(AddressRefused):
        networks.resolve(host, 443, resolver=answers(*REFUSED_HOSTS[host]))


def test_a_public_address_is_taken() -> None:
    """The answer is the very addresses to connect to."""
    found = networks.resolve("data.example.com", 443, resolver=answers("93.184.216.34", "2606:2800:220:1::1"))
    assert found == ["93.184.216.34", "2606:2800:220:1::1"]


def test_an_operator_opens_a_network_but_never_the_metadata_service() -> None:
    """An inner mirror can be reached, in its network only."""
    opened = [ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("169.254.0.0/16")]
    assert networks.resolve("mirror", 443, opened, resolver=answers("10.20.3.4")) == ["10.20.3.4"]
    for ip in ("10.21.0.1", "169.254.169.254"):
        with pytest.raises(AddressRefused):
            networks.resolve("mirror", 443, opened, resolver=answers(ip))
