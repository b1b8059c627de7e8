"""A real PostgreSQL server for tests, with databases of their own for each test.

    fixture `each_database`      runs a test twice: on SQLite and on PostgreSQL
    fixture `postgres_server`    the server that the tests of one pytest process share
    `postgres_of(...)`           where the running test has a service's database; None: SQLite in the folder
    `LocalPostgres(folder)`      a server of the test's own, to be crashed and started again

A module that ends with the same results on both says `pytestmark = EACH_DATABASE`, and its support asks `postgres_of`.
The PostgreSQL half is left out by `-m 'not postgres'`. With `--database postgres` every test whose support asks runs on
PostgreSQL, whatever it says itself.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.grpckit.database import Database, PostgresAddress
from services.stores.postgres import LocalPostgres
from tests.support.empty_sqlite import lay_empty, schema_of

EACH_DATABASE = pytest.mark.usefixtures("each_database")


@dataclass(slots=True)
class TestDatabases:
    """The databases of one test: one for each service and data folder, made when it is asked for."""

    __test__ = False

    server: LocalPostgres
    _names: dict[tuple[str, Path], str] = field(default_factory=dict)

    def of(self, service: str, folder: Path) -> PostgresAddress:
        """Returns the database of a service over a data folder: a copy of an empty one with the newest schema."""
        name = self._names.get((service, folder))
        if name is None:
            name = self._names[service, folder] = f"test_{uuid.uuid4().hex[:12]}"
            self.server.create_database(name, self._template(service))
        return self.server.address(name)

    def empty(self) -> PostgresAddress:
        """Returns a fresh database without any table."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._names["", Path(name)] = name
        self.server.create_database(name)
        return self.server.address(name)

    def drop(self) -> None:
        """Removes them, whoever is still connected."""
        for name in self._names.values():
            self.server.drop_database(name)

    def _template(self, service: str) -> str:
        template = f"template_{service}"
        if not self.server.has_database(template):
            migrations, head = schema_of(service)
            self.server.create_database(template)
            with tempfile.TemporaryDirectory() as folder:
                made = Database(
                    Path(folder) / "unused",
                    migrations=migrations,
                    schema_head=head,
                    service=service,
                    postgres=self.server.address(template),
                )
                made.open()
                made.close()
        return template


_running: list[TestDatabases | None] = [None]
"""Last: the databases of the test that runs now; None: it runs on SQLite."""


def postgres_of(service: str, folder: Path) -> PostgresAddress | None:
    """Returns where the running test has the database of a service over a data folder; None: SQLite in the folder.

    Either is there already: empty, with the newest schema.
    """
    databases = _running[-1]
    if databases is None:
        lay_empty(service, folder)
        return None
    return databases.of(service, folder)


def environment_of(service: str, folder: Path) -> dict[str, str]:
    """Returns the settings of a service's process by which it finds the database that `postgres_of` gives."""
    address = postgres_of(service, folder)
    if address is None:
        return {}
    return {f"TUNEFORGE_{service.upper()}_DATABASE_URL": address.url.render_as_string(hide_password=False)}


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known."""
    config.addinivalue_line("markers", "postgres: runs on a real PostgreSQL server")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[LocalPostgres]:
    """The server that the tests of one pytest process share; what a power cut would do to it matters to nobody."""
    with ExitStack() as ending:
        folder = Path(tempfile.mkdtemp(prefix="tuneforge-postgres-"))
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # where we are root, the server is somebody else
        server = LocalPostgres(folder / "server", is_durable=False, asks_password=False)
        ending.callback(server.crash)
        server.start()
        yield server


@pytest.fixture
def postgres_databases(postgres_server: LocalPostgres) -> Iterator[TestDatabases]:
    """Databases on the shared server, removed after the test."""
    databases = TestDatabases(postgres_server)
    yield databases
    databases.drop()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the choice of a database for all tests."""
    parser.addoption(
        "--database",
        choices=("own", "postgres"),
        default="own",
        help="where services under test have their databases: where each test says, or on PostgreSQL",
    )


@pytest.fixture(scope="session", autouse=True)
def _all_on_postgres(request: pytest.FixtureRequest) -> Iterator[None]:
    """Puts every test on PostgreSQL, if that is asked for."""
    if request.config.getoption("--database") != "postgres":
        yield
        return
    databases = TestDatabases(request.getfixturevalue("postgres_server"))
    _running.append(databases)
    yield
    _running.pop()
    databases.drop()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def each_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test on SQLite, then on PostgreSQL; gives which."""
    _running.append(request.getfixturevalue("postgres_databases") if request.param == "postgres" else None)
    yield request.param
    _running.pop()
