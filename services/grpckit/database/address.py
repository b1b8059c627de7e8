"""Where a service's PostgreSQL database is, and by which password: settings without any driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from services.grpckit.settings import Environment

_FORM = "postgresql://USER@HOST:PORT/DATABASE, perhaps with ?sslmode=verify-full&sslrootcert=FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresAddress:
    """One database on a PostgreSQL server; neither `str` nor `repr` shows the password."""

    url: URL
    """Server, database, user and libpq's own parameters; without a password."""
    password: str = field(default="", repr=False)
    """The user's password; empty where the server asks for none or `password_file` has it."""
    password_file: Path | None = None
    """File that holds the password, read again at each connection, so that it may change while the service runs."""

    def __str__(self) -> str:
        return f"database {self.url.database} at {_host(self.url)}"

    def current_password(self) -> str:
        """Returns the password as it is now; empty for none.

        Raises:
            OSError: the file cannot be read.
        """
        return self.password_file.read_text().strip() if self.password_file else self.password

    @classmethod
    def from_env(cls, service: str, env: Environment) -> PostgresAddress | None:
        """Reads TUNEFORGE_<SERVICE>_DATABASE_URL and its password; None when it is not set: SQLite in the data folder.

        The password comes from TUNEFORGE_<SERVICE>_DATABASE_PASSWORD or, better, from the file that
        TUNEFORGE_<SERVICE>_DATABASE_PASSWORD_FILE names. One in the URL is refused: URLs get logged and shown.

        Args:
            service: Name of the service.
            env: Where problems are noted; texts that may hold a secret are not repeated.
        """
        name = f"TUNEFORGE_{service.upper()}_DATABASE_URL"
        text = env.text(name).strip()
        password_name = f"TUNEFORGE_{service.upper()}_DATABASE_PASSWORD"
        password, password_file = env.text(password_name), env.file(f"{password_name}_FILE")
        if not text:
            return None
        if password and password_file:
            env.problems.append(f"{password_name} and {password_name}_FILE are both set: keep one")
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            env.problems.append(f"{name} cannot be read: it must be {_FORM}")
            return None
        if url.password is not None or "password" in url.query:
            env.problems.append(f"{name} holds a password: give it in {password_name} or {password_name}_FILE")
            return None
        if url.drivername not in {"postgresql", "postgres"} or not url.database:
            env.problems.append(f"{name} is wrong: it must be {_FORM}")
            return None
        return cls(url=url, password=password, password_file=password_file)


def _host(url: URL) -> str:
    host = url.host or url.query.get("host") or "the local socket"
    text = host if isinstance(host, str) else ", ".join(host)
    return f"{text}:{url.port}" if url.port else text
