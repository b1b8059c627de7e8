"""Settings from the environment, read with types, all problems told at once.

A service's own `settings.py` is a frozen dataclass that it fills with an `Environment`:

    env = Environment()
    settings = RegistrySettings(
        server=ServerSettings.from_env("registry", 7101, env=env),
        page_size=env.integer("TUNEFORGE_REGISTRY_PAGE_SIZE", default=50, minimum=1),
    )
    env.finish()  # raises SettingsError, which `server.run` turns into clear lines and exit code 78
"""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.grpckit.folder_lock import StartRefused
from tuneforge.addresses import split_address, split_addresses

DEFAULT_DATA = Path(".tuneforge/data")
"""Root data folder, below the working directory."""


class SettingsError(StartRefused):
    """One or more settings are wrong; the text has one line for each."""

    def __init__(self, problems: Collection[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Environment:
    """Reads typed values from environment variables and collects what is wrong with them.

    A reader returns the default for a wrong value, so that reading goes on; `finish` then tells all problems. A
    variable that is set to the empty text counts as not set, except where `text` is asked.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables
        self.problems: list[str] = []

    def finish(self) -> None:
        """Ends the reading.

        Raises:
            SettingsError: At least one value was wrong.
        """
        if self.problems:
            raise SettingsError(self.problems)

    def refuse(self, name: str, expected: str) -> None:
        """Notes that a variable is wrong, for rules that a reader here does not have."""
        self.problems.append(f"{name}={self._variables.get(name, '')!r} is wrong: it must be {expected}")

    def text(self, name: str, *, default: str = "") -> str:
        """Returns a text as it stands."""
        return self._variables.get(name, default)

    def choice(self, name: str, *, default: str, choices: Collection[str]) -> str:
        """Returns one of some words, in lower case."""
        value = self._variables.get(name, "").strip().lower()
        if not value:
            return default
        if value not in choices:
            self.refuse(name, f"one of {', '.join(choices)}")
            return default
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Returns true for 1, true, yes, on; false for 0, false, no, off."""
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        value = self._variables.get(name, "").strip().lower()
        if not value:
            return default
        if value not in words:
            self.refuse(name, "1 or 0")
            return default
        return words[value]

    def integer(self, name: str, *, default: int, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
        """Returns a whole number in a closed range."""
        value = self._variables.get(name, "").strip()
        if not value:
            return default
        try:
            number = int(value)
        except ValueError:
            number = minimum - 1
        if not minimum <= number <= maximum:
            limit = f" to {maximum}" if maximum < 2**63 - 1 else " or more"
            self.refuse(name, f"a whole number, {minimum}{limit}")
            return default
        return number

    def seconds(self, name: str, *, default: float, minimum: float = 0.0, maximum: float = 1e9) -> float:
        """Returns a time in seconds in a closed range; fractions are allowed."""
        return self.number(name, default=default, minimum=minimum, maximum=maximum, unit="seconds")

    def number(self, name: str, *, default: float, minimum: float, maximum: float, unit: str = "a number") -> float:
        """Returns a finite number in a closed range."""
        value = self._variables.get(name, "").strip()
        if not value:
            return default
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not minimum <= number <= maximum:
            self.refuse(name, f"{unit}, {minimum:g} to {maximum:g}")
            return default
        return number

    def address(self, name: str, *, default: str) -> str:
        """Returns `host:port`; port 0 lets the system choose where a service listens."""
        value = self._variables.get(name, "").strip() or default
        if not value:
            return value
        if split_address(value) is None:
            self.refuse(name, "host:port, such as 127.0.0.1:7101 or [::1]:7101")
            return default
        return value

    def addresses(self, name: str) -> tuple[str, ...]:
        """Returns the addresses of a list with commas between, at which one service is found; none when not set."""
        value = self._variables.get(name, "").strip()
        if not value:
            return ()
        try:
            return split_addresses(value)
        except ValueError as error:
            self.refuse(name, f"host:port, or several with commas between, each once: {error}")
            return ()

    def folder(self, name: str, *, default: Path) -> Path:
        """Returns the absolute path of a folder, which need not exist."""
        path = Path(self._variables.get(name, "").strip() or default).expanduser().absolute()
        if path.exists() and not path.is_dir():
            self.refuse(name, "a folder, not a file")
        return path

    def file(self, name: str) -> Path | None:
        """Returns the absolute path of a file that can be read; None when not set."""
        value = self._variables.get(name, "").strip()
        if not value:
            return None
        path = Path(value).expanduser().absolute()
        if not path.is_file() or not os.access(path, os.R_OK):
            self.refuse(name, "a file that can be read")
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """How a service calls the other services."""

    token: str = field(default="", repr=False)
    """Token that is sent as `authorization: Bearer ...`; empty sends none. TUNEFORGE_TOKEN."""
    tls_ca: Path | None = None
    """PEM file of the authority that signed the peers' certificates; None: plain text, loopback. TUNEFORGE_TLS_CA."""
    timeout_s: float = 10.0
    """Most seconds that one unary call to a peer may take, > 0. 10: a peer that is slower is better asked again."""
    max_message_bytes: int = 16 * 1024 * 1024
    """Largest answer taken from a peer. 16 MiB: an architecture with all its tensor shapes is about 2."""

    @classmethod
    def from_env(cls, *, env: Environment | None = None) -> "PeerSettings":
        """Reads the settings.

        Raises:
            SettingsError: Something is wrong, and no `env` was given in which to note it.
        """
        reader = env or Environment()
        settings = cls(
            token=reader.text("TUNEFORGE_TOKEN").strip(),
            tls_ca=reader.file("TUNEFORGE_TLS_CA"),
        )
        if env is None:
            reader.finish()
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What every service has in common; a service changes a default with `dataclasses.replace`."""

    service: str
    """`registry`, `scheduler`, `trainer` or `inference`."""
    listen: str
    """`host:port` for gRPC; port 0 lets the system choose. TUNEFORGE_<SERVICE>_LISTEN."""
    metrics_listen: str = ""
    """`host:port` for Prometheus over HTTP; empty is off. TUNEFORGE_<SERVICE>_METRICS_LISTEN."""
    data: Path = DEFAULT_DATA
    """The service's own data folder: TUNEFORGE_DATA, with the service's name below it."""
    tls_cert: Path | None = None
    """PEM file with the server's certificate chain. TUNEFORGE_TLS_CERT."""
    tls_key: Path | None = None
    """PEM file with its private key. TUNEFORGE_TLS_KEY."""
    tokens_file: Path | None = None
    """Who may call, see `services/grpckit/auth.py`; None lets everyone on loopback. TUNEFORGE_TOKENS_FILE."""
    peers: PeerSettings = field(default_factory=PeerSettings)
    """How it calls the other services."""
    log_level: str = "info"
    """`debug`, `info`, `warning` or `error`. TUNEFORGE_LOG_LEVEL."""
    unary_deadline_s: float = 30.0
    """Most seconds that a unary call may take where its policy says nothing. 30: what a caller would wait at all."""
    max_message_bytes: int = 4 * 1024 * 1024
    """Largest request. 4 MiB: control calls; bulk travels in chunks of 1 MiB."""
    max_unary_calls: int = 256
    """Unary calls that may run at once. 256: at 10 ms each, far above what one process serves."""
    max_streams: int = 4096
    """Streams that may be open at once, beside the unary calls. 4096: about 25 KB of memory each."""
    max_streams_per_principal: int = 2048
    """Streams that one principal may have open: half of all, so that one cannot lock out the others."""
    drain_s: float = 10.0
    """Seconds that running calls get after the service's own `drain`. 10: a third of what Kubernetes waits."""

    @classmethod
    def from_env(cls, service: str, default_port: int, *, env: Environment | None = None) -> "ServerSettings":
        """Reads the settings of a service.

        Args:
            service: Name of the service.
            default_port: Its gRPC port on loopback; metrics are by default ten above the gRPC port, on loopback.
            env: Where to note problems; None raises them here.

        Raises:
            SettingsError: Something is wrong, and no `env` was given in which to note it.
        """
        reader = env or Environment()
        prefix = f"TUNEFORGE_{service.upper()}"
        metrics_name = f"{prefix}_METRICS_LISTEN"
        listen = reader.address(f"{prefix}_LISTEN", default=f"127.0.0.1:{default_port}")
        port = int(listen.rpartition(":")[2])
        metrics_default = f"127.0.0.1:{port + 10 if 0 < port <= 65525 else 0}"
        is_off = reader.text(metrics_name, default="on").strip() == ""
        settings = cls(
            service=service,
            listen=listen,
            metrics_listen="" if is_off else reader.address(metrics_name, default=metrics_default),
            data=reader.folder("TUNEFORGE_DATA", default=DEFAULT_DATA) / service,
            tls_cert=reader.file("TUNEFORGE_TLS_CERT"),
            tls_key=reader.file("TUNEFORGE_TLS_KEY"),
            tokens_file=reader.file("TUNEFORGE_TOKENS_FILE"),
            peers=PeerSettings.from_env(env=reader),
            log_level=reader.choice(
                "TUNEFORGE_LOG_LEVEL", default="info", choices=("debug", "info", "warning", "error")
            ),
        )
        if env is None:
            reader.finish()
        return settings


def peer_address(service: str, default_port: int, env: Environment) -> str:
    """Returns where another service listens: TUNEFORGE_<SERVICE>_ADDRESS, by default its port on loopback."""
    return env.address(f"TUNEFORGE_{service.upper()}_ADDRESS", default=f"127.0.0.1:{default_port}")
