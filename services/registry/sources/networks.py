"""Which machines the registry may connect to for somebody else, decided on the very address that is connected to."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any

from services.registry.sources.addresses import AddressRefused

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[..., Sequence[tuple[Any, ...]]]

# Not even an operator's setting opens these: the machine's own cloud answers there with credentials.
_METADATA = tuple(
    ipaddress.ip_network(each) for each in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "168.63.129.16/32")
)
# Addresses that carry another one inside, which a router on the way would unpack.
_CARRIERS = tuple(
    ipaddress.ip_network(each) for each in ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48", "::/96")
)


def may_connect(ip: Ip, allowed: Sequence[Network] = ()) -> bool:
    """Returns whether an address is a public one, or in a network that the operator opened.

    Args:
        ip: What would be connected to.
        allowed: Networks of the operator's own, such as that of an internal mirror.
    """
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return may_connect(ip.ipv4_mapped, allowed)
        if ip.scope_id is not None:
            return False
    if ip.is_multicast or ip.is_unspecified or any(ip in network for network in _METADATA):
        return False
    if any(ip in network for network in allowed):
        return True
    return ip.is_global and not ip.is_reserved and not any(ip in network for network in _CARRIERS)


def resolve(
    host: str, port: int, allowed: Sequence[Network] = (), *, resolver: Resolver = socket.getaddrinfo
) -> list[str]:
    """Looks a host up, once, and returns the addresses to connect to, as text.

    One address that may not be connected to refuses all: a name that is public and private at once is a trick.

    Raises:
        AddressRefused: At least one of its addresses is not public.
        OSError: There is no such host, or nobody who would know.
    """
    found = list(dict.fromkeys(str(entry[4][0]) for entry in resolver(host, port, type=socket.SOCK_STREAM)))
    for text in found:
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            ip = None
        if ip is None or not may_connect(ip, allowed):
            raise AddressRefused(
                f"{host} is not on the public internet, and its network is none that the operator opened"
            )
    return found
