"""The addresses from which content may be fetched, as text and in parts. Pure: nothing is looked up or connected.

The text is read once, here, by a stricter grammar than any library's, and everything below works on the parts; nothing
ever reads the text again, so that no second reader can see another host in it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

LONGEST_URI = 2048
"""Characters of an address."""
LONGEST_KEY_BYTES = 1024
"""Of an object's name in S3, by its own rules."""

_PRINTABLE = re.compile(r"[!-~]+")
_NEVER = re.compile(r'[<>"\\^`{|}]')
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://)?")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?=[a-z0-9])){1,61}[a-z0-9]")
_HUB_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9])?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MOST_DECODINGS = 3


class AddressRefused(ValueError):
    """An address is malformed or not allowed; the text says why and what to give, and repeats nothing secret."""


@dataclass(frozen=True, slots=True)
class HttpsAddress:
    """A file on a web server."""

    host: str
    """Lower-case ASCII labels; never a number in any spelling."""
    port: int
    path: str
    """From the first `/` on, percent-encoded as given."""
    query: str = ""
    """What follows `?`; it may carry a signature, so it is not shown."""

    @property
    def shown(self) -> str:
        """The address as it is recorded and told."""
        return f"https://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """Host, and the port where it is not 443."""
        return self.host if self.port == 443 else f"{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """What is asked of the server."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True, slots=True)
class S3Address:
    """An object, or all objects below a prefix."""

    bucket: str
    prefix: str

    @property
    def shown(self) -> str:
        """The address as it is recorded and told."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A repository of the hub."""

    repository: str
    """`owner/name`; some old ones have no owner."""
    revision: str
    """Branch, tag or commit; empty: the main branch."""
    kind: str
    """`model` or `dataset`, where the address says so; empty: what is imported decides."""

    @property
    def shown(self) -> str:
        """The address as it is recorded and told."""
        place = f"datasets/{self.repository}" if self.kind == "dataset" else self.repository
        return f"hf://{place}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class PackageAddress:
    """A file or folder of an installed Python distribution."""

    distribution: str
    path: str

    @property
    def shown(self) -> str:
        """The address as it is recorded and told."""
        return f"package://{self.distribution}/{self.path}".rstrip("/")


Address = HttpsAddress | S3Address | HubAddress | PackageAddress


def parse(text: str) -> Address:
    """Returns the parts of an address.

    Args:
        text: As a caller sent it.

    Raises:
        AddressRefused: It has none of the forms, or would mean different things to different readers.
    """
    if not text:
        raise AddressRefused("the address is empty")
    if len(text) > LONGEST_URI:
        raise AddressRefused(f"the address has {len(text)} characters; at most {LONGEST_URI} are taken")
    if not _PRINTABLE.fullmatch(text) or _NEVER.search(text):
        raise AddressRefused("the address has a space, a control character, a backslash or another one to be encoded")
    found = _SCHEME.match(text)
    if found is None or "://" not in text:
        if found is None and not text.startswith((".", "/", "~")):
            return _hub(text)
        raise AddressRefused("the address has no scheme; give https://, s3://, hf:// or package://")
    scheme, rest = found.group(1).lower(), text[found.end() :]
    if "#" in rest:
        raise AddressRefused("the address has a fragment (#); leave it out")
    readers: dict[str, Callable[[str], Address]] = {"https": parse_https, "s3": _s3, "hf": _hub, "package": _package}
    if scheme not in readers:
        known = ", ".join(f"{name}://" for name in readers)
        raise AddressRefused(f"the scheme {scheme[:20]!r} is not fetched; give one of {known}")
    return readers[scheme](rest)


def parse_https(rest: str) -> HttpsAddress:
    """Returns the parts of what follows `https://`.

    Raises:
        AddressRefused: See `parse`.
    """
    authority, slash, tail = re.match(r"([^/?]*)(/?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if "@" in authority:
        raise AddressRefused("the address has credentials in it; name a connection of the operator instead")
    host, colon, port_text = authority.lower().partition(":")
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise AddressRefused("the host is not a name in ASCII; give it as DNS has it, without port tricks or encoding")
    if _NUMBER_LABEL.fullmatch(host.rpartition(".")[2]):
        raise AddressRefused("the host is a number, not a name; give the name that the operator allows")
    if colon and not (re.fullmatch(r"[1-9][0-9]{0,4}", port_text) and int(port_text) <= 65535):
        raise AddressRefused("the port is not a number from 1 to 65535")
    path, question, query = (slash + tail).partition("?")
    if not slash and question:
        path = ""
    path = path or "/"
    _check_path(path)
    return HttpsAddress(host, int(port_text) if colon else 443, path, query)


def _s3(rest: str) -> S3Address:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or re.fullmatch(r"[0-9.]+", bucket):
        raise AddressRefused(f"{bucket[:80]!r} is no bucket: 3 to 63 of a-z 0-9 - . beginning and ending with a-z 0-9")
    if len(key.encode()) > LONGEST_KEY_BYTES:
        raise AddressRefused(f"the key has {len(key.encode())} bytes; S3 takes at most {LONGEST_KEY_BYTES}")
    if "?" in key:
        raise AddressRefused("the key has a question mark; give bucket and prefix only")
    if key:
        _check_path("/" + key)
    if "//" in key:
        raise AddressRefused("the key has an empty part (//); give it without")
    return S3Address(bucket, key)


def _hub(rest: str) -> HubAddress:
    place, at, revision = rest.partition("@")
    kind, parts = "", place.split("/")
    if len(parts) in {2, 3} and parts[0] in {"datasets", "models", "spaces"}:
        if parts[0] == "spaces":
            raise AddressRefused("a space of the hub is an application, not data; give a model or a data set")
        kind, parts = parts[0].removesuffix("s"), parts[1:]
    is_name = 1 <= len(parts) <= 2 and all(
        _HUB_PART.fullmatch(part) and ".." not in part and "--" not in part for part in parts
    )
    if not is_name:
        raise AddressRefused("it is no repository of the hub; give hf://owner/name or hf://owner/name@revision")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise AddressRefused("the revision is no branch, tag or commit; give it as the hub shows it")
    return HubAddress("/".join(parts), revision, kind)


def _package(rest: str) -> PackageAddress:
    distribution, _, path = rest.partition("/")
    if not _DISTRIBUTION.fullmatch(distribution):
        raise AddressRefused(f"{distribution[:80]!r} is no name of a Python distribution; give package://name/path")
    if "?" in path or "%" in path:
        raise AddressRefused("the path in the package is given as it is on the disk, without encoding")
    if path:
        _check_path("/" + path)
    return PackageAddress(distribution, path.strip("/"))


def _check_path(path: str) -> None:
    """Refuses a path that leaves its place in any spelling: a reader further on may decode once more than we do."""
    if _PERCENT.search(path):
        raise AddressRefused("the path has a % that begins no encoded character; write it as %25")
    decoded = path
    for _ in range(_MOST_DECODINGS):
        if any(part in {".", ".."} for part in re.split(r"[/\\]", decoded)):
            raise AddressRefused("the path has a part . or .., plain or encoded; give it without")
        if any(ord(character) < 32 or ord(character) == 127 or character == "\\" for character in decoded):
            raise AddressRefused("the path has an encoded control character or backslash; give it without")
        following = unquote_to_bytes(decoded).decode("utf-8", "replace")
        if following == decoded:
            return
        decoded = following
    raise AddressRefused("the path is encoded several times over; encode it once")
