"""A file of a web server, through a connection to the very address that was checked."""

import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin

from services.registry.sources import networks
from services.registry.sources.addresses import AddressRefused, HttpsAddress, parse
from services.registry.sources.allowances import HttpsRules
from services.registry.sources.faults import NO_SPACE, Code, SourceFault, for_status
from services.registry.sources.parts import Arrived, Part
from services.registry.sources.places import Listing
from services.registry.sources.wanted import Entry

_TIMEOUT_S = 30.0
"""Without a byte, in seconds."""
_READ_BYTES = 64 * 1024
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ ()+-]{0,199}")
_FILE_NAME = re.compile(r'filename="?([^";/\\]+)"?', re.IGNORECASE)


class _Pinned(http.client.HTTPSConnection):
    """A connection to one address of a host; Host header and certificate are those of its name."""

    def __init__(self, address: HttpsAddress, ip: str, context: ssl.SSLContext) -> None:
        super().__init__(address.host, address.port, timeout=_TIMEOUT_S, context=context)
        self._ip = ip
        self._tls = context

    def connect(self) -> None:
        """Connects without looking the name up again."""
        plain = socket.create_connection((self._ip, self.port), self.timeout)
        try:
            # A stream that ends without TLS's own farewell was cut, and is not taken for a whole file.
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host, suppress_ragged_eofs=False)
        except BaseException:
            plain.close()
            raise


class HttpsPlace:
    """One file.

    Args:
        address: Where.
        rules: What the operator allows.
        context: Whom the server is believed to be.
        resolver: How names are looked up.
    """

    def __init__(
        self,
        address: HttpsAddress,
        rules: HttpsRules,
        context: ssl.SSLContext,
        *,
        resolver: networks.Resolver = socket.getaddrinfo,
    ) -> None:
        self._address = address
        self._rules = rules
        self._resolver = resolver
        self._context = context

    def look(self) -> Listing:
        """Asks for the file's size, name and tag."""
        with self._answer("HEAD", {}) as response:
            if response.status in {405, 501}:  # it does not do HEAD: the transfer will tell
                return Listing("", [Entry(path=self._name(None), key="")])
            if response.status != 200:
                raise for_status(response.status, self._address.shown)
            tag = response.headers.get("ETag", "")
            tag = "" if tag.startswith("W/") else tag[:512]
            size = response.headers.get("Content-Length", "0")
            name = self._name(response.headers.get("Content-Disposition"))
            entry = Entry(path=name, key="", size_bytes=int(size) if size.isdigit() else 0, tag=tag)
            return Listing(tag.strip('"'), [entry])

    def fetch(self, part: Part, tell: Callable[[int], None]) -> Arrived:
        """Brings the file, from where an earlier try stopped if the server has the same one still."""
        held = part.held_bytes
        if held and held == part.entry.size_bytes:
            return part.fill((), held, tell)
        headers = {"Range": f"bytes={held}-", "If-Range": part.entry.tag} if held else {}
        with self._answer("GET", headers) as response:
            if response.status == 416 and held:  # all of a file whose size the server does not say
                return part.fill((), held, tell)
            if response.status not in {200, 206}:
                raise for_status(response.status, self._address.shown)
            if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
                raise SourceFault(Code.UNAVAILABLE, f"{self._address.shown} sent another part than was asked for")
            return part.fill(_chunks(response), held if response.status == 206 else 0, tell)

    def _name(self, disposition: str | None) -> str:
        """Returns a plain file name: the server's if it is harmless, else that of the path."""
        found = _FILE_NAME.search(disposition or "")
        last = PurePosixPath(unquote(self._address.path)).name
        for name in (found.group(1).strip() if found else "", last):
            if _SAFE_NAME.fullmatch(name):
                return name
        return "download"

    @contextmanager
    def _answer(self, method: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """Gives the answer that is no redirect, with the connection it came over."""
        address = self._address
        for _ in range(_MOST_REDIRECTS + 1):
            connection = self._connect(address)
            try:
                connection.request(method, address.target, headers={"Accept-Encoding": "identity", **headers})
                response = connection.getresponse()
                if response.status not in _REDIRECTS:
                    if response.headers.get("Content-Encoding", "identity") != "identity":
                        raise SourceFault(Code.UNAVAILABLE, f"{address.shown} is sent compressed though not asked to")
                    yield response
                    return
                address = self._redirected(address, response.headers.get("Location", ""))
            except (http.client.HTTPException, ssl.SSLError, OSError) as error:
                if isinstance(error, OSError) and error.errno in NO_SPACE:
                    raise
                raise SourceFault(Code.UNAVAILABLE, f"{address.shown} broke off: {type(error).__name__}") from None
            finally:
                connection.close()
        raise SourceFault(Code.UNAVAILABLE, f"{self._address.shown} redirects more than {_MOST_REDIRECTS} times")

    def _connect(self, address: HttpsAddress) -> _Pinned:
        if not self._rules.allows(address):
            raise AddressRefused(f"the host {address.authority} is not on the operator's list of hosts")
        try:
            ips = networks.resolve(address.host, address.port, self._rules.networks, resolver=self._resolver)
        except OSError:
            raise SourceFault(Code.NOT_FOUND, f"there is no host {address.host}, or no way to ask for it") from None
        failure: OSError | None = None
        for ip in ips:
            connection = _Pinned(address, ip, self._context)
            try:
                connection.connect()
            except OSError as error:
                failure = error
            else:
                return connection
        kind = type(failure).__name__ if failure else "no address"
        raise SourceFault(Code.UNAVAILABLE, f"{address.authority} does not answer: {kind}")

    def _redirected(self, address: HttpsAddress, location: str) -> HttpsAddress:
        following = parse(urljoin(f"https://{address.authority}{address.path}", location))
        if not isinstance(following, HttpsAddress) or following.authority != self._address.authority:
            raise AddressRefused(f"{address.authority} redirects to another host, which is not followed")
        return following


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(_READ_BYTES):
        yield chunk
