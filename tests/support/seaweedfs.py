"""A real S3 server for tests: SeaweedFS from its package, on loopback, with a bucket for each test.

    fixture `bucket`        a fresh bucket on the server that all tests of one pytest process share
    fixture `s3_server`     that server
    fixture `each_home`     runs a test twice: with blobs in a folder and in a bucket; `running_registry` does the rest
    `S3Server(folder)`      one of the test's own, to be killed and started again

It listens on five ports and on their twins 10000 above; all ten are looked for below the system's ephemeral range, so
that no other test gets one of them by chance.
"""

import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import minio
import pytest
import urllib3

from services.registry.blobs.presigning import Credentials
from services.registry.blobs.settings import S3Settings
from tests.support.patience import TEST_LIMIT_S

ACCESS_KEY = "tuneforge-tests"
SECRET_KEY = "not-a-secret-of-anyone"
REGION = "us-east-1"

_TWIN = 10_000
_FIRST_PORT, _LAST_PORT = 12_000, 22_000
_START_LIMIT_S = TEST_LIMIT_S / 2
_NAMES = ("s3", "master", "volume", "filer", "admin")
# Without these it takes 900 MB while it receives 256 MiB. 400: with 300 MB at most it stays below, while at a limit of
# 200 its collector never rests and costs 7 % of a core for as long as the server is idle.
_MEMORY = {"GOMEMLIMIT": "400MiB", "GOGC": "50"}


@dataclass(frozen=True, slots=True)
class Bucket:
    """A fresh bucket on a running server."""

    endpoint: str
    """`http://127.0.0.1:<port>`."""
    name: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = REGION

    @property
    def client(self) -> minio.Minio:
        """A client of the server."""
        return client_of(self.endpoint)

    def keys(self, prefix: str = "") -> list[str]:
        """Returns the keys of all objects below a prefix."""
        found = self.client.list_objects(self.name, prefix=prefix, recursive=True)
        return sorted(entry.object_name for entry in found if entry.object_name)

    def settings(self, **changes: Any) -> S3Settings:
        """Returns the settings of a registry whose blobs live in the bucket.

        Args:
            changes: Fields that differ.
        """
        settings = S3Settings(
            bucket=self.name,
            prefix="tests",
            credentials=Credentials(self.access_key, self.secret_key),
            endpoint=self.endpoint,
            region=self.region,
            timeout_s=20.0,
        )
        return replace(settings, **changes)


EACH_HOME = pytest.mark.usefixtures("each_home")
"""For tests, and modules by `pytestmark`, that are to run with blobs in a folder and in S3."""
_bucket: list[Bucket] = []


def s3_of_test() -> S3Settings | None:
    """Returns where the blobs of the test that runs live: None is a folder."""
    return _bucket[-1].settings() if _bucket else None


class S3Server:
    """One SeaweedFS over a folder; not started by itself. Not safe for use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:<port>`; the same after `kill` and `start`."""
        return f"http://127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        """Starts it and returns when it stores objects; again on the same ports and data after `kill`.

        Raises:
            RuntimeError: It does not start; the text has the end of its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(1 if self._ports else 3):
            ports = self._ports or _free_ports()
            self._process = _launch(self._folder, ports)
            if self._is_ready(ports[0]):
                self._ports = ports
                return
            self.kill()
        raise RuntimeError(f"SeaweedFS does not start: {(self._folder / 'log').read_text()[-2000:]}")

    def _is_ready(self, port: int) -> bool:
        client = client_of(f"http://127.0.0.1:{port}")
        until = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < until and self._process and self._process.poll() is None:
            # The port is open before volumes can be written to: only a stored object says that it works.
            with suppress(minio.S3Error, minio.error.ServerError, urllib3.exceptions.HTTPError):
                if not client.bucket_exists("ready"):
                    client.make_bucket("ready")
                client.put_object("ready", "ready", io.BytesIO(), 0)
                return True
            time.sleep(0.05)
        return False

    def bucket(self) -> Bucket:
        """Makes a fresh bucket."""
        bucket = Bucket(self.endpoint, f"test-{uuid.uuid4().hex[:16]}")
        bucket.client.make_bucket(bucket.name)
        return bucket

    def kill(self) -> None:
        """Ends it at once, if it runs; its data stays."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        for name, port in zip(_NAMES, self._ports, strict=False):
            Path(tempfile.gettempdir(), f"seaweedfs-{name}-grpc-{port + _TWIN}.sock").unlink(missing_ok=True)


def client_of(endpoint: str) -> minio.Minio:
    """Returns a client that tells faults at once instead of trying again for minutes."""
    pool = urllib3.PoolManager(retries=urllib3.Retry(0), timeout=urllib3.Timeout(connect=2.0, read=20.0), maxsize=4)
    host = endpoint.removeprefix("http://")
    return minio.Minio(
        host, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, secure=False, http_client=pool
    )


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server that the tests of one pytest process share."""
    with ExitStack() as ending:
        folder = Path(tempfile.mkdtemp(prefix="tuneforge-s3-"))
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        server = S3Server(folder)
        ending.callback(server.kill)
        server.start()
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    """A fresh bucket on the shared server."""
    return s3_server.bucket()


@pytest.fixture(params=["folder", "s3"])
def each_home(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where blobs live while the test runs."""
    if request.param == "folder":
        yield request.param
        return
    _bucket.append(request.getfixturevalue("bucket"))
    yield request.param
    _bucket.pop()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the runs on PostgreSQL and S3 at once: each of the two is tested with the other's default."""

    def is_both(item: pytest.Item) -> bool:
        chosen = getattr(getattr(item, "callspec", None), "params", {})
        return chosen.get("each_home") == "s3" and chosen.get("each_database") == "postgres"

    left_out = [item for item in items if is_both(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not is_both(item)]


def _launch(folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    s3, master, volume, filer, admin = ports
    program = Path(sys.executable).with_name("weed")
    command = [
        str(program),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={s3}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-admin.port={admin}",
        f"-s3.localSocket={folder}/s3.sock",
        f"-filer.localSocket={folder}/filer.sock",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        # Each bucket has volumes of its own: what a nearly full disk would be given is used up by the first tests.
        "-volume.max=4000",
        "-master.telemetry=false",
    ]
    variables = os.environ | _MEMORY | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            # `setpriv` becomes the server, which then ends with pytest even when that is killed.
            ["/usr/bin/setpriv", "--pdeathsig", "KILL", *command] if Path("/usr/bin/setpriv").exists() else command,
            env=variables,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )


def _free_ports() -> list[int]:
    """Returns five ports that are free now, as their twins are."""
    found: list[int] = []
    while len(found) < len(_NAMES):
        port = random.randrange(_FIRST_PORT, _LAST_PORT)
        if port not in found and _is_free(port) and _is_free(port + _TWIN):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
