"""Imports from elsewhere, over a real socket: https, the hub, packages; what is refused, resumed, remembered."""

import asyncio
import hashlib
import json
import threading
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest

from tests.support.elsewhere import Elsewhere, dataset_request, elsewhere, followed, model_request
from tests.support.event_loop import on_loop
from tests.support.hub import Repository
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import fields_of, folder_files, refused, running_registry
from tests.support.seaweedfs import EACH_HOME
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge.errors import Reason, from_rpc_error
from tuneforge.v1 import datasets_pb2, events_pb2, sources_pb2

ROW = json.dumps({"prompt": "Say hello.", "completion": "Hello."}).encode() + b"\n"
Progress = sources_pb2.ImportProgress


def rows(count: int, word: str = "hello") -> bytes:
    """Returns that many different rows."""
    return b"".join(
        json.dumps({"prompt": f"Say {word} {number}.", "completion": f"{word} {number}"}).encode() + b"\n"
        for number in range(count)
    )


@EACH_DATABASE
@on_loop
async def test_a_file_is_fetched_over_https(tmp_path: Path) -> None:
    """The version has the file's bytes under its name; the caller sees how far it is; nothing is left behind."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/sets/rows.jsonl"] = content = rows(40_000)
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            request = dataset_request(dataset, there.files.url("/sets/rows.jsonl?X-Signature=canary"))
            outcome = await followed(registry.stub.ImportDatasetVersion(request))
            file = outcome.version.manifest.files[0]
            assert (file.path, file.size_bytes) == ("rows.jsonl", len(content))
            assert file.sha256 == hashlib.sha256(content).hexdigest()
            assert outcome.version.rows == 40_000
            assert outcome.progress[0].phase == Progress.PHASE_LISTING
            assert outcome.progress[-1].phase == Progress.PHASE_EXAMINING
            assert {each.bytes for each in outcome.progress[1:]} == {len(content)}
            assert outcome.progress[-1].bytes_done == len(content)
            assert not list((tmp_path / "data" / "imports" / "default").iterdir())
            found = await registry.stub.GetDatasetVersion(
                datasets_pb2.GetDatasetVersionRequest(name=outcome.version.name)
            )
            assert found == outcome.version
            assert found.source.uri == there.files.url("/sets/rows.jsonl")
            assert found.source.digest == found.manifest.digest
            assert found.source.revision
            assert found.source.fetch_time.seconds > 0


@on_loop
async def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The second call asks for the rest only, with the tag of what it has."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/rows.jsonl"] = content = rows(50_000)
        there.files.breaks["/rows.jsonl"] = 1_500_000
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            request = dataset_request(dataset, there.files.url("/rows.jsonl"))
            await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.SOURCE_UNAVAILABLE)
            outcome = await followed(registry.stub.ImportDatasetVersion(request))
            assert outcome.version.manifest.files[0].sha256 == hashlib.sha256(content).hexdigest()
        ranges = [asked for method, _, asked in there.files.asked if method == "GET"]
        assert ranges[0] == ""
        assert int(ranges[1].removeprefix("bytes=").removesuffix("-")) > 1_000_000


@on_loop
async def test_a_file_that_changed_is_fetched_anew(tmp_path: Path) -> None:
    """What an earlier try left of another content is not mixed into it."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/rows.jsonl"] = rows(50_000, "old")
        there.files.breaks["/rows.jsonl"] = 1_500_000
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            request = dataset_request(dataset, there.files.url("/rows.jsonl"))
            await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.SOURCE_UNAVAILABLE)
            there.files.files["/rows.jsonl"] = content = rows(50_000, "new")
            outcome = await followed(registry.stub.ImportDatasetVersion(request))
            assert outcome.version.manifest.files[0].sha256 == hashlib.sha256(content).hexdigest()


@on_loop
async def test_the_same_request_id_fetches_once(tmp_path: Path) -> None:
    """The answer is remembered; with another body the id is refused; the same content is the same version."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/rows.jsonl"] = there.files.files["/copy/rows.jsonl"] = ROW
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            request = dataset_request(dataset, there.files.url("/rows.jsonl"), request_id="one")
            first = await followed(registry.stub.ImportDatasetVersion(request))
            num_asked = len(there.files.asked)
            again = await followed(registry.stub.ImportDatasetVersion(request))
            assert again.version == first.version
            assert len(there.files.asked) == num_asked
            other = dataset_request(dataset, there.files.url("/copy/rows.jsonl"), request_id="one")
            await refused(followed(registry.stub.ImportDatasetVersion(other)), Reason.REQUEST_ID_REUSED)
            other.request_id = "two"
            same = await followed(registry.stub.ImportDatasetVersion(other))
            assert same.version.name == first.version.name
            assert same.version.source.uri == there.files.url("/rows.jsonl")


@on_loop
async def test_imports_of_the_same_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    """They do not disturb each other's parts, and end with one version."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/rows.jsonl"] = rows(20_000)
        async with running_registry(tmp_path / "data", sources=there.settings(at_once=8)) as registry:
            dataset = await registry.dataset()
            requests = [dataset_request(dataset, there.files.url("/rows.jsonl"), request_id=each) for each in "abca"]
            calls = [followed(registry.stub.ImportDatasetVersion(request)) for request in requests]
            outcomes = await asyncio.gather(*calls)
            assert {outcome.version.name for outcome in outcomes} == {f"{dataset}/versions/1"}
        assert not list((tmp_path / "data" / "imports" / "default").iterdir())


@on_loop
async def test_what_arrives_is_examined_like_an_upload(tmp_path: Path) -> None:
    """Malformed rows are named; no version is made of them."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/rows.jsonl"] = ROW + b"{broken\n"
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            request = dataset_request(dataset, there.files.url("/rows.jsonl"))
            error = await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.INVALID_DATA)
            assert fields_of(error)[0].startswith("rows.jsonl:2")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing.jsonl", Reason.SOURCE_NOT_FOUND),
        ("/private.jsonl", Reason.SOURCE_DENIED),
        ("/broken.jsonl", Reason.SOURCE_UNAVAILABLE),
        ("/away.jsonl", Reason.URL_NOT_ALLOWED),
        ("/round.jsonl", Reason.SOURCE_UNAVAILABLE),
        ("/large.jsonl", Reason.SOURCE_TOO_LARGE),
        ("/tool.exe", Reason.SOURCE_NOT_FOUND),
    ],
)
def test_what_a_server_answers_is_told(tmp_path: Path, path: str, reason: Reason) -> None:
    """Each end has a reason that the caller can act on."""

    @on_loop
    async def run() -> None:
        with elsewhere(tmp_path / "there") as there:
            there.files.statuses |= {"/private.jsonl": 403, "/broken.jsonl": 500}
            there.files.redirects |= {
                "/away.jsonl": "https://127.0.0.1/rows.jsonl",
                "/round.jsonl": "/round.jsonl",
            }
            there.files.files |= {"/large.jsonl": ROW * 100, "/tool.exe": b"MZ"}
            async with running_registry(tmp_path / "data", sources=there.settings(largest_bytes=1000)) as registry:
                request = dataset_request(await registry.dataset(), there.files.url(path))
                await refused(followed(registry.stub.ImportDatasetVersion(request)), reason)

    run()


@on_loop
async def test_a_server_that_hides_the_size_cannot_send_more(tmp_path: Path) -> None:
    """The limit counts the bytes that come, not those that are promised."""
    with elsewhere(tmp_path / "there") as there:
        there.files.is_silent_on_size = True
        there.files.files["/rows.jsonl"] = rows(5000)
        async with running_registry(tmp_path / "data", sources=there.settings(largest_bytes=10_000)) as registry:
            request = dataset_request(await registry.dataset(), there.files.url("/rows.jsonl"))
            await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.SOURCE_TOO_LARGE)


@on_loop
async def test_a_cut_file_of_unknown_size_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """Where no size is promised, only the farewell of TLS says that all has come."""
    with elsewhere(tmp_path / "there") as there:
        there.files.is_silent_on_size = True
        there.files.files["/rows.jsonl"] = ROW * 1000
        there.files.breaks["/rows.jsonl"] = len(ROW) * 500
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            request = dataset_request(await registry.dataset(), there.files.url("/rows.jsonl"))
            await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.SOURCE_UNAVAILABLE)


@on_loop
async def test_too_many_imports_are_refused_and_a_caller_who_leaves_frees_the_place(tmp_path: Path) -> None:
    """The limit holds while one runs; ending its call ends its process."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/rows.jsonl"] = rows(50_000)
        there.files.held["/rows.jsonl"] = let_go = threading.Event()
        async with running_registry(tmp_path / "data", sources=there.settings(at_once=1)) as registry:
            dataset = await registry.dataset()
            request = dataset_request(dataset, there.files.url("/rows.jsonl"))
            running = registry.stub.ImportDatasetVersion(request)
            async for message in running:
                if message.progress.file_bytes:
                    break
            await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.TOO_MANY_CALLS)
            running.cancel()
            let_go.set()
            while True:  # the registry hears of the cancelled call a moment later
                try:
                    outcome = await followed(registry.stub.ImportDatasetVersion(request))
                    break
                except grpc.RpcError as error:
                    if from_rpc_error(error).reason != Reason.TOO_MANY_CALLS:
                        raise
            assert outcome.version.rows == 50_000


def add_model(there: Elsewhere, folder: Path, **options: object) -> Repository:
    """Puts a tiny model on the hub."""
    files = folder_files(make_tiny_model(folder))
    extra = {"README.md": b"# Tiny", "pytorch_model.bin": b"pickle", "onnx/model.json": b"{}", "run.py": b"boom"}
    repository = Repository(files | extra, **options)  # type: ignore[arg-type]
    there.hub.repositories["owner/tiny"] = repository
    return repository


@on_loop
async def test_a_model_is_fetched_from_the_hub(tmp_path: Path) -> None:
    """Only its harmless files, at the commit that the revision meant; large ones from where the hub sends them."""
    with elsewhere(tmp_path / "there") as there:
        repository = add_model(there, tmp_path / "tiny", commit="c" * 40, branches=("main", "v1"))
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            model = await registry.model()
            outcome = await followed(registry.stub.ImportModelVersion(model_request(model, "hf://owner/tiny@v1")))
            paths = {file.path for file in outcome.version.manifest.files}
            assert "model.safetensors" in paths
            assert not paths & {"README.md", "pytorch_model.bin", "onnx/model.json", "run.py"}
            assert outcome.version.source.uri == "hf://owner/tiny@v1"
            assert outcome.version.source.revision == repository.commit
            assert any(path.startswith("/lfs/") for _, path, _ in there.files.asked)
            same = await followed(registry.stub.ImportModelVersion(model_request(model, "owner/tiny")))
            assert same.version.name == outcome.version.name


@EACH_HOME
@on_loop
async def test_files_that_are_stored_are_not_fetched_twice(tmp_path: Path) -> None:
    """After a break in the large file, the small ones before it are not asked for again."""
    with elsewhere(tmp_path / "there") as there:
        add_model(there, tmp_path / "tiny")
        weights = there.hub.repositories["owner/tiny"].files["model.safetensors"]
        there.files.breaks[f"/lfs/{hashlib.sha256(weights).hexdigest()}"] = 1000
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            request = model_request(await registry.model(), "hf://owner/tiny")
            await refused(followed(registry.stub.ImportModelVersion(request)), Reason.SOURCE_UNAVAILABLE)
            there.hub.asked.clear()
            outcome = await followed(registry.stub.ImportModelVersion(request))
            assert outcome.version.kind
            assert not [path for _, path, _ in there.hub.asked if path.endswith("/config.json")]


@on_loop
async def test_a_gated_model_needs_a_connection_and_its_token_goes_to_the_hub_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal says how to name one; the operator decides which project may; the token stays where it belongs."""
    monkeypatch.setenv("TEAM_HUB_TOKEN", "canary-token-1")
    monkeypatch.setenv("HF_TOKEN", "canary-token-2")
    with elsewhere(tmp_path / "there") as there:
        add_model(there, tmp_path / "tiny", token="canary-token-1", is_gated=True)
        there.allowed["hub"]["tokens"] = {
            "team": {"env": "TEAM_HUB_TOKEN"},
            "others": {"env": "TEAM_HUB_TOKEN", "projects": ["other"]},
        }
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            model = await registry.model()
            denied = await refused(
                followed(registry.stub.ImportModelVersion(model_request(model, "hf://owner/tiny"))),
                Reason.SOURCE_DENIED,
            )
            assert "connection" in denied.message
            for name in ("others", "absent"):
                request = model_request(model, "hf://owner/tiny", connection=name)
                error = await refused(followed(registry.stub.ImportModelVersion(request)), Reason.INVALID_FIELD)
                assert fields_of(error) == ["location.connection"]
            request = model_request(model, "hf://owner/tiny", connection="team")
            assert (await followed(registry.stub.ImportModelVersion(request))).version.name
        assert not there.files.authorizations
        assert {authorization for _, _, authorization in there.hub.asked} == {"", "Bearer canary-token-1"}


@on_loop
async def test_unknown_and_silent_hubs_are_told_apart(tmp_path: Path) -> None:
    """An unknown repository or revision is not found; a hub that fails is to be asked again; one is off."""
    with elsewhere(tmp_path / "there") as there:
        there.hub.repositories["datasets/owner/rows"] = Repository({"train.jsonl": ROW})
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()

            async def end(uri: str, reason: Reason) -> None:
                await refused(followed(registry.stub.ImportDatasetVersion(dataset_request(dataset, uri))), reason)

            await end("hf://owner/absent", Reason.SOURCE_NOT_FOUND)
            await end("hf://owner/rows@absent", Reason.SOURCE_NOT_FOUND)
            await end("hf://models/owner/rows", Reason.URL_NOT_ALLOWED)
            there.hub.status = 500
            await end("hf://owner/rows", Reason.SOURCE_UNAVAILABLE)
            there.allowed["hub"] = None
            there.settings()
            await end("hf://owner/rows", Reason.URL_NOT_ALLOWED)


@on_loop
async def test_a_data_set_of_the_hub_gives_the_split_that_is_asked_for(tmp_path: Path) -> None:
    """`train` without a word, another by name; a split that is not there is told with those that are."""
    with elsewhere(tmp_path / "there") as there:
        there.hub.repositories["datasets/owner/rows"] = Repository(
            {"data/train-00000.jsonl": rows(3), "data/test-00000.jsonl": rows(2, "other"), "README.md": b"# Rows"}
        )
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            for split, count in (("", 3), ("test", 2), ("*", 5)):
                request = dataset_request(dataset, "hf://owner/rows", source_split=split)
                outcome = await followed(registry.stub.ImportDatasetVersion(request))
                assert outcome.version.rows == count
            request = dataset_request(dataset, "hf://owner/rows", source_split="dev")
            error = await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.SOURCE_NOT_FOUND)
            assert "test, train" in error.message


@on_loop
async def test_a_configuration_of_the_hub_is_chosen_by_its_card(tmp_path: Path) -> None:
    """Its files and no others; without a name, those that there are are told; the card itself is no file of it."""
    card = (
        b"---\nconfigs:\n- {config_name: en, data_files: [{split: train, path: a.jsonl}, {split: test, path: t/*}]}\n"
    )
    card += b"- {config_name: no, data_files: b.jsonl}\n---\n"
    files = {"a.jsonl": rows(3), "t/x.jsonl": rows(2, "other"), "b.jsonl": rows(4, "no"), "README.md": card}
    with elsewhere(tmp_path / "there") as there:
        there.hub.repositories["datasets/owner/rows"] = Repository(files)
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            for config, split, count in (("en", "", 3), ("en", "test", 2), ("no", "", 4)):
                request = dataset_request(dataset, "hf://owner/rows", source_config=config, source_split=split)
                outcome = await followed(registry.stub.ImportDatasetVersion(request))
                assert outcome.version.rows == count
                assert len(outcome.version.manifest.files) == 1
            for config, words in (("", "choose one of en, no"), ("de", "there are en, no")):
                request = dataset_request(dataset, "hf://owner/rows", source_config=config)
                error = await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.SOURCE_NOT_FOUND)
                assert words in error.message


@on_loop
async def test_a_download_that_the_hub_sends_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """The hub may name any host for a large file; only those of the operator's list are connected to."""
    with elsewhere(tmp_path / "there") as there:
        add_model(there, tmp_path / "tiny")
        there.allowed["hub"]["hosts"] = []
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            request = model_request(await registry.model(), "hf://owner/tiny")
            await refused(followed(registry.stub.ImportModelVersion(request)), Reason.URL_NOT_ALLOWED)
        assert not there.files.asked


@on_loop
async def test_a_package_is_read_when_the_operator_lists_it(tmp_path: Path) -> None:
    """Its version is the revision; without the operator's word nothing of it is looked at."""
    with elsewhere(tmp_path / "there") as there:
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            request = dataset_request(dataset, "package://hypothesis/hypothesis/vendor")
            await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.URL_NOT_ALLOWED)
            there.allowed["packages"] = ["absent-distribution", "hypothesis"]
            there.settings()
            absent = dataset_request(dataset, "package://absent-distribution/x")
            await refused(followed(registry.stub.ImportDatasetVersion(absent)), Reason.SOURCE_NOT_FOUND)
            request = dataset_request(dataset, "package://hypothesis/hypothesis/vendor", include=["tlds-*.txt"])
            outcome = await followed(registry.stub.ImportDatasetVersion(request))
            assert [file.path for file in outcome.version.manifest.files] == ["tlds-alpha-by-domain.txt"]
            assert outcome.version.source.revision == version("hypothesis")


@on_loop
async def test_adapters_facts_and_divisions_come_with_an_import(tmp_path: Path) -> None:
    """What `CreateModelVersion` and `CreateDatasetVersion` take beside the files is passed on to them."""
    with elsewhere(tmp_path / "there") as there:
        add_model(there, tmp_path / "tiny")
        there.hub.repositories["owner/adapter"] = Repository(folder_files(make_tiny_adapter(tmp_path / "adapter")))
        there.files.files["/rows.jsonl"] = rows(200)
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            model = await registry.model()
            base = (await followed(registry.stub.ImportModelVersion(model_request(model, "owner/tiny")))).version
            request = model_request(model, "owner/adapter")
            await refused(followed(registry.stub.ImportModelVersion(request)), Reason.INVALID_MODEL)
            request.base.version = base.name
            request.version.license = "apache-2.0"
            adapter = (await followed(registry.stub.ImportModelVersion(request))).version
            assert adapter.kind == events_pb2.ARTIFACT_KIND_ADAPTER
            assert adapter.lineage.base.digest == base.manifest.digest
            assert adapter.license == "apache-2.0"
            divided = dataset_request(await registry.dataset(), there.files.url("/rows.jsonl"))
            divided.split.validation_ratio = 0.25
            outcome = await followed(registry.stub.ImportDatasetVersion(divided))
            assert outcome.version.split.validation_ratio == 0.25
            assert 0 < outcome.version.statistics.validation_rows < 100
