"""What is connected to for an https address: the address that was checked, once, and nothing else."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.registry.sources.addresses import AddressRefused, HttpsAddress
from services.registry.sources.allowances import HttpsRules
from services.registry.sources.faults import SourceFault
from services.registry.sources.places.https import HttpsPlace
from tests.support.url_corpus import REFUSED_HOSTS


class Sink:
    """Listens on loopback and counts who comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.hits = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.hits += 1
            connection.close()

    def close(self) -> None:
        """Ends it."""
        self._socket.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A listener that must hear nothing."""
    listener = Sink()
    yield listener
    listener.close()


def answers(calls: list[str], *rounds: list[str]) -> Any:
    """Returns a name server that answers each question with the next list, and notes the questions."""

    def resolver(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        calls.append(host)
        ips = rounds[min(len(calls), len(rounds)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

    return resolver


@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_nothing_is_sent_to_an_inner_machine(host: str, sink: Sink) -> None:
    """The host is on the operator's list, and its name server points inside: no packet leaves."""
    rules = HttpsRules(hosts=(f"{host}:{sink.port}",))
    resolver = answers([], REFUSED_HOSTS[host])
    place = HttpsPlace(HttpsAddress(host, sink.port, "/rows"), rules, ssl.create_default_context(), resolver=resolver)
    with pytest.raises(AddressRefused):
        place.look()
    assert sink.hits == 0


def test_a_name_is_asked_for_once_and_that_answer_is_connected_to(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that changes its mind after the check changes nothing."""
    connected: list[Any] = []

    def connect(address: Any, *_: Any) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    questions: list[str] = []
    resolver = answers(questions, ["93.184.216.34"], ["127.0.0.1"])
    rules = HttpsRules(hosts=("data.example.com",))
    place = HttpsPlace(
        HttpsAddress("data.example.com", 443, "/rows"), rules, ssl.create_default_context(), resolver=resolver
    )
    with pytest.raises(SourceFault):
        place.look()
    assert questions == ["data.example.com"]
    assert connected == [("93.184.216.34", 443)]


def test_a_host_off_the_list_is_not_even_looked_up(sink: Sink, tmp_path: Path) -> None:
    """Also a name below an allowed one, another port of it, and one that only ends alike."""
    rules = HttpsRules(hosts=("data.example.com", "*.mirror.example"))
    questions: list[str] = []
    for host, port in (
        ("other.example.com", 443),
        ("sub.data.example.com", 443),
        ("data.example.com", 8443),
        ("mirror.example", 443),
        ("evilmirror.example", 443),
    ):
        place = HttpsPlace(
            HttpsAddress(host, port, "/rows"), rules, ssl.create_default_context(), resolver=answers(questions, [])
        )
        with pytest.raises(AddressRefused):
            place.look()
    assert questions == []
