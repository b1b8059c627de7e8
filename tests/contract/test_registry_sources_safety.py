"""Imports that somebody means ill with, or that end badly: refused addresses, secrets, kills; and S3 itself."""

import asyncio
import hashlib
import io
import json
import logging
import threading
from pathlib import Path

import grpc
import pytest

from tests.support.elsewhere import dataset_request, elsewhere, followed, model_request
from tests.support.event_loop import on_loop
from tests.support.registry import PROJECT, fields_of, folder_files, refused, running_registry
from tests.support.registry_process import RegistryProcess
from tests.support.seaweedfs import Bucket
from tests.support.tiny_model import make_tiny_model
from tests.support.url_corpus import REFUSED_BY_FORM
from tuneforge.errors import Reason
from tuneforge.v1 import datasets_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

ROW = json.dumps({"prompt": "Say hello.", "completion": "Hello."}).encode() + b"\n"
CANARY = "canary-8f14e45f-secret"


@on_loop
async def test_no_byte_goes_to_a_refused_address(tmp_path: Path) -> None:
    """The whole corpus, against a server on this machine that would hear of it, and hears nothing."""
    heard = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(writer.get_extra_info("peername"))
        writer.close()

    sink = await asyncio.start_server(hear, "127.0.0.1", 0)
    port = str(sink.sockets[0].getsockname()[1])
    with elsewhere(tmp_path / "there") as there:
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            for text in REFUSED_BY_FORM:
                request = dataset_request(dataset, text.replace("{port}", port))
                error = await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.URL_NOT_ALLOWED)
                assert fields_of(error) == ["location.uri"]
                assert "password" not in str(error)
            there.allowed = {}
            there.settings()
            request = dataset_request(dataset, there.files.url("/rows.jsonl"))
            await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.URL_NOT_ALLOWED)
        assert not there.files.asked
    sink.close()
    await sink.wait_closed()
    assert heard == []


@on_loop
async def test_wrong_fields_are_told_at_once(tmp_path: Path) -> None:
    """Patterns, connection and split are checked together."""
    async with running_registry(tmp_path) as registry:
        request = dataset_request(
            await registry.dataset(), "owner/name", include=["x" * 300], connection="c" * 99, source_split="s" * 99
        )
        error = await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.INVALID_FIELD)
        assert fields_of(error) == ["location.include[0]", "location.connection", "source_split"]
        absent = dataset_request(f"{PROJECT}/datasets/absent", "owner/name")
        await refused(followed(registry.stub.ImportDatasetVersion(absent)), Reason.NOT_FOUND)


@on_loop
async def test_what_the_version_cannot_be_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    """A division, facts and a base that will be refused cost no transfer."""
    with elsewhere(tmp_path / "there") as there:
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            rows = dataset_request(await registry.dataset(), there.files.url("/rows.jsonl"))
            rows.split.validation_ratio, rows.split.seed = 2, -1
            error = await refused(followed(registry.stub.ImportDatasetVersion(rows)), Reason.INVALID_FIELD)
            assert fields_of(error) == ["split.validation_ratio", "split.seed"]
            model = model_request(await registry.model(), there.files.url("/model.safetensors"))
            model.version.tags.append(" ")
            error = await refused(followed(registry.stub.ImportModelVersion(model)), Reason.INVALID_FIELD)
            assert fields_of(error) == ["version.tags"]
            del model.version.tags[:]
            model.base.version = f"{PROJECT}/models/absent/versions/1"
            await refused(followed(registry.stub.ImportModelVersion(model)), Reason.NOT_FOUND)
        assert there.files.asked == []


def put(bucket: Bucket, key: str, content: bytes) -> None:
    """Stores an object."""
    bucket.client.put_object(bucket.name, key, io.BytesIO(content), len(content))


@pytest.mark.heavy
@on_loop
async def test_s3_gives_data_sets_and_models(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single object, a prefix, a model; buckets and credentials as the operator says, and no other way."""
    monkeypatch.setenv("S3_ACCESS", bucket.access_key)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "secret").write_text(bucket.secret_key + "\n")
    put(bucket, "sets/one/train.jsonl", ROW * 2)
    put(bucket, "sets/one/more/train.jsonl", ROW)
    put(bucket, "sets/one/notes.pdf", b"%PDF")
    for path, content in folder_files(make_tiny_model(tmp_path / "tiny")).items():
        put(bucket, f"models/tiny/{path}", content)
    with elsewhere(tmp_path / "there") as there:
        connection = {
            "endpoint": bucket.endpoint,
            "region": bucket.region,
            "access_key": {"env": "S3_ACCESS"},
            "secret_key": {"file": "secret"},
        }
        there.allowed["s3"] = {
            "default": connection | {"buckets": [bucket.name]},
            "wrong": connection | {"secret_key": {"env": "S3_ACCESS"}},
            "closed": connection | {"projects": ["other"]},
        }
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset, model = await registry.dataset(), await registry.model()
            one = await followed(
                registry.stub.ImportDatasetVersion(
                    dataset_request(dataset, f"s3://{bucket.name}/sets/one/train.jsonl", request_id="a")
                )
            )
            assert [file.path for file in one.version.manifest.files] == ["train.jsonl"]
            all_of_it = await followed(
                registry.stub.ImportDatasetVersion(dataset_request(dataset, f"s3://{bucket.name}/sets/one"))
            )
            assert {file.path for file in all_of_it.version.manifest.files} == {"train.jsonl", "more/train.jsonl"}
            fetched = await followed(
                registry.stub.ImportModelVersion(model_request(model, f"s3://{bucket.name}/models/tiny"))
            )
            assert fetched.version.source.uri == f"s3://{bucket.name}/models/tiny"
            for uri, name, reason in (
                (f"s3://{bucket.name}/absent", "", Reason.SOURCE_NOT_FOUND),
                ("s3://another-bucket/x", "", Reason.URL_NOT_ALLOWED),
                (f"s3://{bucket.name}/sets/one", "wrong", Reason.SOURCE_DENIED),
                (f"s3://{bucket.name}/sets/one", "closed", Reason.INVALID_FIELD),
                (f"s3://{bucket.name}/sets/one", "absent", Reason.INVALID_FIELD),
            ):
                request = dataset_request(dataset, uri, connection=name)
                error = await refused(followed(registry.stub.ImportDatasetVersion(request)), reason)
                assert bucket.secret_key not in str(error)


def test_a_killed_registry_goes_on_and_keeps_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fetching process ends with it; the next registry asks for the rest only; no secret is in any file of it."""
    monkeypatch.setenv("TEAM_HUB_TOKEN", CANARY)
    content = ROW * 100_000
    with elsewhere(tmp_path / "there") as there:
        there.allowed["hub"]["tokens"] = {"team": {"env": "TEAM_HUB_TOKEN"}}
        there.settings()
        monkeypatch.setenv("TUNEFORGE_REGISTRY_SOURCES_FILE", str(tmp_path / "there" / "sources.json"))
        there.files.files["/rows.jsonl"] = content
        there.files.held["/rows.jsonl"] = let_go = threading.Event()
        registry = RegistryProcess(tmp_path / "data")
        try:
            registry.start()
            with grpc.insecure_channel(registry.address) as channel:
                stub = RegistryServiceStub(channel)
                create = datasets_pb2.CreateDatasetRequest(parent=PROJECT, dataset_id="rows")
                dataset = stub.CreateDataset(create).name
                request = dataset_request(dataset, there.files.url(f"/rows.jsonl?signature={CANARY}"))
                for message in stub.ImportDatasetVersion(request):
                    if message.progress.file_bytes > 0:  # told five times a second: the next word may come too late
                        break
                hub = dataset_request(dataset, "hf://owner/absent", connection="team")
                with pytest.raises(grpc.RpcError) as refusal:
                    list(stub.ImportDatasetVersion(hub))
                assert CANARY not in str(refusal.value)
                list_of_parts = list((tmp_path / "data").rglob("*.part"))
            registry.kill()
            let_go.set()
            registry.start()
            with grpc.insecure_channel(registry.address) as channel:
                version = list(RegistryServiceStub(channel).ImportDatasetVersion(request))[-1].version
        finally:
            registry.kill()
    assert list_of_parts
    assert version.manifest.files[0].sha256 == hashlib.sha256(content).hexdigest()
    assert "bytes=" in there.files.asked[-1][2]
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


@on_loop
async def test_no_secret_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither when all goes well nor when the place, or the operator's file, is at fault."""
    monkeypatch.setenv("TEAM_HUB_TOKEN", CANARY)
    caplog.set_level(logging.DEBUG)
    with elsewhere(tmp_path / "there") as there:
        there.allowed["hub"]["tokens"] = {"team": {"env": "TEAM_HUB_TOKEN"}, "empty": {"env": "NOT_SET_ANYWHERE"}}
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            there.files.files["/rows.jsonl"] = ROW
            good = dataset_request(dataset, there.files.url(f"/rows.jsonl?signature={CANARY}"))
            outcome = await followed(registry.stub.ImportDatasetVersion(good))
            assert CANARY not in str(outcome)
            there.files.statuses[f"/{CANARY}"] = 500
            hub = dataset_request(dataset, "hf://owner/absent", connection="team")
            error = await refused(followed(registry.stub.ImportDatasetVersion(hub)), Reason.SOURCE_NOT_FOUND)
            assert CANARY not in str(error)
            empty = dataset_request(dataset, "hf://owner/absent", connection="empty")
            await refused(followed(registry.stub.ImportDatasetVersion(empty)), Reason.URL_NOT_ALLOWED)
            there.allowed["hub"]["tokens"]["team"] = CANARY
            there.settings()
            error = await refused(followed(registry.stub.ImportDatasetVersion(hub)), Reason.URL_NOT_ALLOWED)
            assert CANARY not in str(error)
    out, err = capfd.readouterr()
    assert CANARY not in out + err + caplog.text
