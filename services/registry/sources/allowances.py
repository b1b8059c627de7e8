"""What the operator allows to be fetched, and with which credentials: one JSON file, read anew at each import.

    {
      "https": {"hosts": ["data.example.com", "*.mirror.example:8443"], "networks": ["10.20.0.0/16"]},
      "s3": {"default": {"endpoint": "https://s3.example.com", "region": "eu-1", "buckets": ["team-*"],
                         "access_key": {"env": "S3_ACCESS_KEY"}, "secret_key": {"file": "/run/secrets/s3"}}},
      "hub": {"endpoint": "https://huggingface.co", "tokens": {"team": {"env": "TEAM_HUB_TOKEN"}}},
      "packages": ["some-weights"],
      "ca": "ca.pem"
    }

Without the file only public repositories of the hub can be fetched. A secret is never written in it: it names the
environment variable or the file that holds one, and its value is read when an import needs it.
"""

import fnmatch
import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.registry.sources.addresses import AddressRefused, HttpsAddress
from services.registry.sources.networks import Network

PUBLIC_HUB = "https://huggingface.co"
HUB_HOSTS = ("huggingface.co", "*.huggingface.co", "*.hf.co")
"""Where the public hub may send a download to."""
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class AllowancesUnreadable(Exception):
    """The operator's file is wrong; the text has one line for each problem and no secret."""


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is kept."""

    env: str = ""
    """Name of an environment variable."""
    file: str = ""
    """Path of a file."""
    projects: tuple[str, ...] = ("*",)
    """Patterns of the projects that may use it; of a token of the hub."""

    def read(self) -> str:
        """Returns the secret as it is now.

        Raises:
            AddressRefused: It is not there; the text names the place and no value.
        """
        if self.env:
            value = os.environ.get(self.env, "").strip()
        else:
            try:
                value = Path(self.file).read_text(encoding="utf-8").strip()
            except (OSError, ValueError):
                value = ""
        if not value:
            raise AddressRefused("the connection's secret is not set on the registry's machine; tell the operator")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsRules:
    """Web servers."""

    hosts: tuple[str, ...] = ()
    """`host`, `*.domain`, each with `:port` where it is not 443; empty: none."""
    networks: tuple[Network, ...] = ()
    """Networks that may be connected to though they are not public."""

    def allows(self, address: HttpsAddress) -> bool:
        """Returns whether a host is on the list."""
        return any_host(self.hosts, address.host, address.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Connection:
    """An object store with the credentials for it."""

    endpoint: str
    """`https://host[:port]`."""
    region: str = ""
    buckets: tuple[str, ...] = ("*",)
    """Patterns of the buckets that may be read."""
    projects: tuple[str, ...] = ("*",)
    """Patterns of the projects that may use the connection."""
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRules:
    """The hub of models and data sets."""

    endpoint: str = PUBLIC_HUB
    """Empty: the hub is not used."""
    hosts: tuple[str, ...] = HUB_HOSTS
    """Where it may send a download to, beside its own host."""
    tokens: Mapping[str, SecretReference] = field(default_factory=dict)
    """Connections: name -> where its token is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowances:
    """All of it."""

    https: HttpsRules = field(default_factory=HttpsRules)
    s3: Mapping[str, S3Connection] = field(default_factory=dict)
    hub: HubRules = field(default_factory=HubRules)
    packages: tuple[str, ...] = ()
    """Names of Python distributions."""
    ca: str = ""
    """PEM file of an authority beside those of the system, for inner mirrors; empty: none."""


def any_host(hosts: tuple[str, ...], host: str, port: int) -> bool:
    """Returns whether a host and port match an entry of a list."""
    for entry in hosts:
        name, _, entry_port = entry.partition(":")
        if int(entry_port or 443) != port:
            continue
        if name == host or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False


def load(path: Path | None) -> Allowances:
    """Returns what the operator's file allows.

    Args:
        path: The file; None: the defaults.

    Raises:
        AllowancesUnreadable: It cannot be read or is wrong somewhere, all places told.
    """
    if path is None:
        return Allowances()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AllowancesUnreadable(f"{path} cannot be read as JSON: {type(error).__name__}") from None
    reader = _Reader(path.parent)
    allowances = reader.allowances(content)
    if reader.problems:
        raise AllowancesUnreadable("\n".join(f"{path}: {problem}" for problem in reader.problems))
    return allowances


class _Reader:
    """Reads the file's parts and collects what is wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[str] = []

    def allowances(self, content: Any) -> Allowances:
        top = self._object("the file", content, {"https", "s3", "hub", "packages", "ca"})
        ca = self._text("ca", top.get("ca", ""))
        connections = self._object("s3", top.get("s3", {}), None)
        return Allowances(
            https=self._https(top.get("https", {})),
            s3={name: self._s3(f"s3.{name}", each) for name, each in connections.items() if self._named("s3", name)},
            hub=self._hub(top["hub"]) if "hub" in top else HubRules(),
            packages=self._texts("packages", top.get("packages", [])),
            ca=str(self._folder / ca) if ca else "",
        )

    def _https(self, value: Any) -> HttpsRules:
        rules = self._object("https", value, {"hosts", "networks"})
        networks = []
        for text in self._texts("https.networks", rules.get("networks", [])):
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError:
                self.problems.append(f"https.networks has {text!r}, which is no network such as 10.20.0.0/16")
        return HttpsRules(
            hosts=self._hosts("https.hosts", rules.get("hosts", [])),
            networks=tuple(networks),
        )

    def _s3(self, place: str, value: Any) -> S3Connection:
        known = {"endpoint", "region", "buckets", "projects", "access_key", "secret_key"}
        rules = self._object(place, value, known)
        keys = {
            name: self._secret(f"{place}.{name}", rules[name]) if name in rules else None
            for name in ("access_key", "secret_key")
        }
        if (keys["access_key"] is None) != (keys["secret_key"] is None):
            self.problems.append(f"{place} has one of access_key and secret_key; give both or none")
        return S3Connection(
            endpoint=self._endpoint(f"{place}.endpoint", rules.get("endpoint", "")),
            region=self._text(f"{place}.region", rules.get("region", "")),
            buckets=self._texts(f"{place}.buckets", rules.get("buckets", ["*"])),
            projects=self._texts(f"{place}.projects", rules.get("projects", ["*"])),
            **keys,
        )

    def _hub(self, value: Any) -> HubRules:
        if value is None:
            return HubRules(endpoint="")
        rules = self._object("hub", value, {"endpoint", "hosts", "tokens"})
        endpoint = self._endpoint("hub.endpoint", rules.get("endpoint", PUBLIC_HUB))
        tokens = self._object("hub.tokens", rules.get("tokens", {}), None)
        default_hosts = list(HUB_HOSTS) if endpoint == PUBLIC_HUB else []
        return HubRules(
            endpoint=endpoint,
            hosts=self._hosts("hub.hosts", rules.get("hosts", default_hosts)),
            tokens={
                name: self._secret(f"hub.tokens.{name}", each)
                for name, each in tokens.items()
                if self._named("hub.tokens", name)
            },
        )

    def _object(self, place: str, value: Any, known: set[str] | None) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.problems.append(f"{place} is not a JSON object")
            return {}
        for key in value if known is not None else ():
            if key not in (known or ()):
                self.problems.append(f"{place} has the unknown key {key!r}; known are {', '.join(sorted(known or ()))}")
        return value

    def _named(self, place: str, name: str) -> bool:
        is_name = _NAME.fullmatch(name) is not None
        if not is_name:
            self.problems.append(f"{place} has the name {name[:80]!r}; give letters, digits, dot, dash, underscore")
        return is_name

    def _text(self, place: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        self.problems.append(f"{place} is not a text")
        return ""

    def _texts(self, place: str, value: Any) -> tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        self.problems.append(f"{place} is not a list of texts")
        return ()

    def _hosts(self, place: str, value: Any) -> tuple[str, ...]:
        hosts = self._texts(place, value)
        wrong = [host for host in hosts if not _HOST.fullmatch(host)]
        self.problems += [f"{place} has {host[:80]!r}; give host, host:port or *.domain" for host in wrong]
        return tuple(host for host in hosts if host not in wrong)

    def _endpoint(self, place: str, value: Any) -> str:
        text = self._text(place, value).rstrip("/")
        if not _ENDPOINT.fullmatch(text):
            self.problems.append(f"{place} is not of the form https://host or https://host:port")
        return text

    def _secret(self, place: str, value: Any) -> SecretReference:
        content = dict(value) if isinstance(value, dict) else {}
        projects = self._texts(f"{place}.projects", content.pop("projects", ["*"]))
        is_text = all(isinstance(each, str) and each for each in content.values())
        if len(content) != 1 or not set(content) <= {"env", "file"} or not is_text:
            self.problems.append(f'{place} must be {{"env": "NAME"}} or {{"file": "path"}}, never the secret itself')
            return SecretReference()
        if "file" in content:
            content["file"] = str(self._folder / content["file"])
        return SecretReference(**content, projects=projects)


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Returns whether a name, of a bucket or project, fits one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
