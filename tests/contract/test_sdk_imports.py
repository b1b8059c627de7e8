"""Imports as users ask for them: the SDK's methods and the commands, against the real registry and small places."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.elsewhere import elsewhere
from tests.support.event_loop import on_loop
from tests.support.hub import Repository
from tests.support.registry import folder_files, running_registry
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge.cli.app import cli
from tuneforge.cli.imports import words
from tuneforge.client import Client
from tuneforge.errors import InvalidArgument, NotFound, Reason, Unavailable
from tuneforge.imports import ImportOptions, ImportPhase, ImportProgress, is_address, package_path

ROW = json.dumps({"prompt": "Say hello.", "completion": "Hello."}).encode() + b"\n"


@on_loop
async def test_the_sdk_follows_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress with each step, the version with its source; a place that breaks off is told with what to do."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/train.jsonl"] = ROW * 40_000
        there.files.breaks["/train.jsonl"] = 1_500_000
        there.hub.repositories["owner/tiny"] = Repository(folder_files(make_tiny_model(tmp_path / "tiny")))
        there.hub.repositories["datasets/owner/rows"] = Repository({"train.jsonl": ROW, "test.jsonl": ROW * 2})
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            monkeypatch.setenv("TUNEFORGE_REGISTRY_ADDRESS", registry.address)

            def use() -> None:
                with Client(patience_s=0) as client:
                    uri = there.files.url("/train.jsonl")
                    with pytest.raises(Unavailable) as broken:
                        client.datasets.import_from(uri, "rows", description="Polite.")
                    assert broken.value.reason == Reason.SOURCE_UNAVAILABLE
                    assert "kept" in broken.value.cure
                    told: list[ImportProgress] = []
                    found = client.datasets.import_from(uri, "rows", progress=told.append)
                    assert (found.rows, client.datasets.get("rows").description) == (40_000, "Polite.")
                    assert told[0].phase == ImportPhase.LISTING
                    assert told[-1].phase == ImportPhase.EXAMINING
                    assert told[-1].bytes_done == told[-1].size_bytes == len(ROW) * 40_000
                    assert found.source
                    assert found.source.uri == uri
                    assert client.datasets.version("rows").source == found.source
                    test = client.datasets.import_from(
                        "owner/rows", "other", options=ImportOptions(source_split="test")
                    )
                    assert test.rows == 2
                    model = client.models.import_from("hf://owner/tiny", "tiny")
                    assert model.source
                    assert model.source.revision == "a" * 40
                    assert client.models.version("tiny").source == model.source
                    assert next(client.models.versions("tiny")).source == model.source
                    with pytest.raises(InvalidArgument) as refusal:
                        client.models.import_from("https://127.0.0.1/model", "tiny")
                    assert refusal.value.reason == Reason.URL_NOT_ALLOWED

            await asyncio.to_thread(use)


@on_loop
async def test_commands_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address, an id of the hub, a folder, and packages of this machine."""
    with elsewhere(tmp_path / "there") as there:
        rows = b"".join(json.dumps({"prompt": f"Say {n}.", "completion": str(n)}).encode() + b"\n" for n in range(50))
        there.hub.repositories["datasets/owner/rows"] = Repository({"rows.jsonl": rows})
        there.hub.repositories["owner/tiny"] = Repository(folder_files(make_tiny_model(tmp_path / "tiny")))
        there.hub.repositories["owner/adapter"] = Repository(folder_files(make_tiny_adapter(tmp_path / "adapter")))
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            monkeypatch.setenv("TUNEFORGE_REGISTRY_ADDRESS", registry.address)

            def use() -> None:
                runner = CliRunner()
                package = ["package://hypothesis/hypothesis/vendor/tlds-alpha-by-domain.txt", "--here"]
                for arguments, expected in (
                    (
                        ["datasets", "import", "hf://owner/rows", "--dataset", "rows", "--validation", "0.3"],
                        "rows/1: 50 rows",
                    ),
                    (["datasets", "show", "rows"], "hf://owner/rows aaaaaaaaaaaa"),
                    (["datasets", "import", *package, "--dataset", "names"], "names/1: "),
                    (["models", "import", "owner/tiny", "--model", "tiny"], "tiny/1: LlamaForCausalLM"),
                    (
                        ["models", "import", "owner/adapter", "--model", "adapter", "--adapter-of", "tiny"],
                        "adapter/1",
                    ),
                    (["models", "show", "tiny/1"], "hf://owner/tiny aaaaaaaaaaaa"),
                    (["models", "import", str(tmp_path / "tiny"), "--model", "tiny"], "tiny/1: LlamaForCausalLM"),
                ):
                    result = runner.invoke(cli, arguments, catch_exceptions=False)
                    assert result.exit_code == 0, result.output
                    assert expected in result.output

            await asyncio.to_thread(use)


@on_loop
async def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    """The command ends with one line; the registry keeps what has arrived."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/rows.jsonl"] = ROW * 100_000
        there.files.held["/rows.jsonl"] = let_go = threading.Event()
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            command = [sys.executable, "-m", "tuneforge.cli", "datasets", "import", there.files.url("/rows.jsonl")]

            def stop() -> tuple[int, str]:
                process = subprocess.Popen(
                    [*command, "--dataset", "rows"],
                    env=os.environ | {"TUNEFORGE_REGISTRY_ADDRESS": registry.address},
                    stderr=subprocess.PIPE,
                    text=True,
                )
                while not list((tmp_path / "data").rglob("*.part")):
                    assert process.poll() is None
                    time.sleep(0.01)
                process.send_signal(signal.SIGINT)
                _, told = process.communicate()
                return process.returncode, told

            code, told = await asyncio.to_thread(stop)
            let_go.set()
    assert code == 130
    assert "no version was made; what has arrived at the registry is kept" in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://owner/name", True),
        ("S3://bucket", True),
        ("owner/name", True),
        ("owner/name@v1", True),
        ("name", False),
        ("./owner/name", False),
        ("/owner/name", False),
        ("a/b/c", False),
        ("file:///etc", False),
    ],
)
def test_addresses_and_paths_are_told_apart(text: str, expected: bool) -> None:
    """What has a scheme or the form of a hub id is an address."""
    assert is_address(text) == expected


def test_a_folder_that_is_there_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local path wins."""
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_address("owner/name")


def test_paths_of_packages_stay_in_their_package() -> None:
    """What the distribution lists is found; what it does not, and other places, are refused with what there is."""
    assert package_path("package://hypothesis/hypothesis/vendor").is_dir()
    assert version("hypothesis")
    for uri in (
        "package://hypothesis/../../etc",
        "package://hypothesis/hypothesis/absent",
        "package://absent-distribution/x",
        "https://hypothesis/x",
    ):
        with pytest.raises(InvalidArgument):
            package_path(uri)


def test_progress_in_words() -> None:
    """What stands beside the bar."""

    def progress(phase: ImportPhase, file: str = "") -> ImportProgress:
        return ImportProgress(
            phase=phase, file=file, file_bytes=1, file_size_bytes=2, files_done=1, files=3, bytes_done=1, size_bytes=9
        )

    assert words(progress(ImportPhase.LISTING)) == "asking"
    assert words(progress(ImportPhase.FETCHING, "a\x1b[2J.json")) == "2/3 a\N{REPLACEMENT CHARACTER}[2J.json"
    assert words(progress(ImportPhase.FETCHING)) == "1/3 files"
    assert words(progress(ImportPhase.EXAMINING)) == "examining 3 files"


@on_loop
async def test_an_import_that_is_refused_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set or model that was made for it is gone again; one that was there, or breaks off, stays."""
    with elsewhere(tmp_path / "there") as there:
        there.files.files["/train.jsonl"] = ROW * 40_000
        there.files.breaks["/train.jsonl"] = 1_500_000
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            monkeypatch.setenv("TUNEFORGE_REGISTRY_ADDRESS", registry.address)

            def use() -> None:
                with Client(patience_s=0) as client:
                    client.datasets.create("mine", description="Kept.")
                    for dataset in ("mine", "new"):
                        with pytest.raises(InvalidArgument):
                            client.datasets.import_from("https://10.0.0.1/rows.jsonl", dataset)
                        with pytest.raises(NotFound):
                            client.datasets.import_from(there.files.url("/nothing.jsonl"), dataset)
                    assert [each.name.rpartition("/")[2] for each in client.datasets.list()] == ["mine"]
                    with pytest.raises(NotFound):
                        client.models.import_from("hf://owner/nothing", "new")
                    assert not list(client.models.list())
                    with pytest.raises(Unavailable):
                        client.datasets.import_from(there.files.url("/train.jsonl"), "later")
                    assert client.datasets.import_from(there.files.url("/train.jsonl"), "later").rows == 40_000

            await asyncio.to_thread(use)
