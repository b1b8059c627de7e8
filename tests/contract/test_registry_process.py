"""The registry as a process: how it starts, what kills leave behind, and why it refuses to start."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import grpc
import pysqlite3
import pytest
from google.protobuf.message import Message

from services.registry.tables import SCHEMA_HEAD
from tests.support.registry import PROJECT, pieces
from tuneforge.blobs import BlobClient
from tuneforge.v1 import blobs_pb2, datasets_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

CONTENT = os.urandom(4096) * 512  # 2 MiB
START_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class RegistryProcess:
    """A registry that takes calls in a process of its own."""

    process: "subprocess.Popen[str]"
    address: str

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(START_LIMIT_S)


def environment(data: Path) -> dict[str, str]:
    """Returns the environment of a registry with this data folder, on a free port."""
    return os.environ | {
        "TUNEFORGE_DATA": str(data),
        "TUNEFORGE_REGISTRY_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_REGISTRY_METRICS_LISTEN": "",
        "TUNEFORGE_REGISTRY_RESERVE_BYTES": "0",
    }


@contextmanager
def started(data: Path, *options: str) -> Iterator[RegistryProcess]:
    """Starts a registry, waits until it serves, and kills it at the end."""
    command = [sys.executable, *options, "-m", "services.registry"]
    with (data.parent / "registry.err").open("a+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment(data), text=True)
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_LIMIT_S)
            line = process.stdout.readline() if ready else ""
            assert line.startswith("tuneforge registry listening on 127.0.0.1:"), (line, errors.seek(0), errors.read())
            yield RegistryProcess(process, line.split()[4])
        finally:
            process.kill()
            process.wait(START_LIMIT_S)
            if process.stdout is not None:
                process.stdout.close()


def refusal(data: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a registry that must not start."""
    command = [sys.executable, "-m", "services.registry"]
    return subprocess.run(command, capture_output=True, text=True, env=environment(data), timeout=START_LIMIT_S)


def call(address: str, method: str, request: Message) -> Message:
    """Calls one unary method."""
    with grpc.insecure_channel(address) as channel:
        answer: Message = getattr(RegistryServiceStub(channel), method)(request, timeout=START_LIMIT_S)
        return answer


def test_sigterm_ends_it_in_good_order(tmp_path: Path) -> None:
    """It drains, ends with 0 and leaves a database without a write-ahead log."""
    with started(tmp_path / "data") as registry:
        assert registry.end(signal.SIGTERM) == 0
    assert not (tmp_path / "data" / "registry" / "registry.sqlite-wal").exists()


def test_a_second_process_on_the_same_folder_ends_with_78(tmp_path: Path) -> None:
    """The second one says in one line who holds the folder; the first one goes on."""
    with started(tmp_path / "data") as registry:
        done = refusal(tmp_path / "data")
        assert done.returncode == 78
        (line,) = done.stderr.splitlines()
        assert f"is in use by process {registry.process.pid}" in line
        call(registry.address, "ListDatasets", datasets_pb2.ListDatasetsRequest(parent=PROJECT))


def test_a_folder_of_a_newer_release_ends_with_78(tmp_path: Path) -> None:
    """A schema that this release does not know is left alone, with one line that says so."""
    with started(tmp_path / "data") as registry:
        registry.end(signal.SIGTERM)
    path = tmp_path / "data" / "registry" / "registry.sqlite"
    with pysqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    done = refusal(tmp_path / "data")
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert f"schema 9999, which is newer than {SCHEMA_HEAD}" in line


def test_acknowledged_changes_outlive_a_kill(tmp_path: Path) -> None:
    """After SIGKILL the next start has all that was answered, and a repeated request its first answer."""
    request = datasets_pb2.CreateDatasetRequest(parent=PROJECT, dataset_id="greetings", request_id="one")
    with started(tmp_path / "data") as registry:
        first = call(registry.address, "CreateDataset", request)
        registry.end(signal.SIGKILL)
    with started(tmp_path / "data") as registry:
        assert call(registry.address, "CreateDataset", request) == first


def test_an_upload_outlives_a_kill_in_its_middle(tmp_path: Path) -> None:
    """The part that is left is harmless: it is told as the offset, and the SDK goes on from there."""
    content = tmp_path / "content"
    content.write_bytes(CONTENT)
    killed = threading.Event()

    def hanging() -> Iterator[blobs_pb2.UploadBlobRequest]:
        yield from islice(pieces(CONTENT), 20)
        killed.wait(START_LIMIT_S)

    asked: blobs_pb2.GetBlobAccessRequest
    with started(tmp_path / "data") as registry, grpc.insecure_channel(registry.address) as channel:
        stub = RegistryServiceStub(channel)
        pending = stub.UploadBlob.future(hanging())
        (digest,) = {message.upload.rpartition("/")[2] for message in islice(pieces(CONTENT), 1)}
        asked = blobs_pb2.GetBlobAccessRequest(
            name=f"{PROJECT}/blobs/{digest}", direction=blobs_pb2.BLOB_DIRECTION_WRITE, size_bytes=len(CONTENT)
        )
        give_up_at = time.monotonic() + START_LIMIT_S
        while stub.GetBlobAccess(asked).stream.committed_bytes < 20 * 64 * 1024:
            assert time.monotonic() < give_up_at
        registry.end(signal.SIGKILL)
        killed.set()
        with pytest.raises(grpc.RpcError):
            pending.result(START_LIMIT_S)
    with started(tmp_path / "data") as registry, BlobClient.connect(registry.address, "default") as blobs:
        with grpc.insecure_channel(registry.address) as channel:
            access = RegistryServiceStub(channel).GetBlobAccess(asked)
        assert (access.is_stored, access.stream.committed_bytes) == (False, 20 * 64 * 1024)
        sent: list[int] = []
        entry = blobs.upload_file(content, progress=sent.append)
        assert sent[0] == 20 * 64 * 1024
        blobs.download(entry.sha256, entry.size_bytes, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT
    assert not list((tmp_path / "data" / "registry" / "uploads").rglob("*.part"))


def test_a_start_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    """Neither the migrations nor what checks rows is imported by a start with the schema in place."""
    with started(tmp_path / "data") as registry:
        registry.end(signal.SIGTERM)
    (tmp_path / "registry.err").unlink()
    with started(tmp_path / "data", "-X", "importtime") as registry:
        registry.end(signal.SIGTERM)
    imported = {line.rpartition("|")[2].strip() for line in (tmp_path / "registry.err").read_text().splitlines()}
    assert "sqlalchemy" in imported
    for package in ("alembic", "jinja2", "tokenizers", "numpy", "torch", "tuneforge.data.rows"):
        assert package not in imported


@pytest.mark.parametrize("name", ["TUNEFORGE_REGISTRY_RESERVE_BYTES", "TUNEFORGE_REGISTRY_UPLOAD_KEPT_S"])
def test_wrong_settings_end_with_78(tmp_path: Path, name: str) -> None:
    """A setting that is no number is named in one line."""
    command = [sys.executable, "-m", "services.registry"]
    variables = environment(tmp_path) | {name: "much"}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=START_LIMIT_S)
    assert done.returncode == 78
    assert f"{name}='much' is wrong" in done.stderr
