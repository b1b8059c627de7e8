"""Data sets by SDK and command line against a real registry: folders, split, rows, findings, descriptions."""

import asyncio
import copy
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.event_loop import on_loop
from tests.support.registry import running_registry
from tests.unit.data.reading import image, parquet, write
from tuneforge import Client, Conflict, DataFormat, InvalidArgument, RowShape, SplitSide
from tuneforge._connections import Connections
from tuneforge.cli.app import cli
from tuneforge.v1 import rows_pb2

ROWS = [{"prompt": f"p{number}", "completion": "c " * (number + 1)} for number in range(30)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def client_of(address: str) -> Client:
    """Returns a client of a registry."""
    return Client(registry=address)


@on_loop
async def test_a_folder_is_uploaded_whole(tmp_path: Path) -> None:
    """Files keep their paths, what holds no rows stays behind, and the version says what it is like."""
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    write(tmp_path / "set", {"data/train-0.parquet": parquet(columns), "data/test-0.parquet": parquet(columns)})
    write(tmp_path / "set", {"README.md": b"About.", ".git/config": b"x", ".DS_Store": b"x"})
    async with running_registry(tmp_path / "registry") as registry:

        def use() -> None:
            with client_of(registry.address) as client:
                version = client.datasets.upload(tmp_path / "set", "hub")
                assert [file.path for file in version.manifest.files] == ["data/test-0.parquet", "data/train-0.parquet"]
                assert (version.format, version.shape, version.rows) == (
                    DataFormat.PARQUET,
                    RowShape.PROMPT_COMPLETION,
                    60,
                )
                assert version.split.by_files
                assert version.statistics is not None
                assert (version.statistics.train_rows, version.statistics.test_rows) == (30, 30)
                assert version.statistics.duplicate_rows == 30
                assert [remark.code for remark in version.remarks] == ["DUPLICATE_ROW"]
                rows = list(client.datasets.rows("hub", side=SplitSide.TEST))
                assert [row.content for row in rows] == ROWS
                assert rows[4].file == "data/test-0.parquet"
                [again] = [
                    row for row in client.datasets.rows("hub", row_id=rows[4].row_id[:16]) if row.side == "TRAIN"
                ]
                assert again.line == rows[4].line == 5
                assert next(client.datasets.versions("hub")).statistics is None

        await asyncio.to_thread(use)


@on_loop
async def test_a_version_comes_back_as_it_went(tmp_path: Path) -> None:
    """The files of a version keep paths and bytes; what lies beside them stays; another upload is the same version."""
    write(tmp_path / "set", {"train.jsonl": LINES, "more/test.jsonl": LINES[:100].rpartition(b"\n")[0]})
    write(tmp_path / "copy", {".notes": b"mine"})
    async with running_registry(tmp_path / "registry") as registry:

        def use() -> None:
            with client_of(registry.address) as client:
                made = client.datasets.upload(tmp_path / "set", "rows")
                moved: list[int] = []
                assert client.datasets.download("rows", tmp_path / "copy", progress=moved.append) == made
                assert sum(moved) == made.size_bytes
                for file in made.manifest.files:
                    assert (tmp_path / "copy" / file.path).read_bytes() == (tmp_path / "set" / file.path).read_bytes()
                assert (tmp_path / "copy" / ".notes").read_bytes() == b"mine"
                assert client.datasets.upload(tmp_path / "copy", "rows").name == made.name
                result = CliRunner().invoke(
                    cli, ["datasets", "download", "rows/1", str(tmp_path / "again"), "--registry", registry.address]
                )
                assert result.output.startswith("rows/1: 2 files, "), result.output
                assert (tmp_path / "again/more/test.jsonl").is_file()
                client.datasets.download("rows", tmp_path / "part", include=["test*"])
                assert [file.name for file in (tmp_path / "part").rglob("*.jsonl")] == ["test.jsonl"]
                with pytest.raises(InvalidArgument, match=r"(?s)no file of the version fits \*\.csv.*more/test\.jsonl"):
                    client.datasets.download("rows", tmp_path / "none", include=["*.csv"])
                assert not (tmp_path / "none").exists()

        await asyncio.to_thread(use)


def test_rows_are_asked_for_in_large_pages_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page costs a process that reads from the first row on, so who reads on gets a thousand rows at once."""
    asked: list[rows_pb2.ListDatasetRowsRequest] = []

    def listed(request: rows_pb2.ListDatasetRowsRequest, **_: object) -> rows_pb2.ListDatasetRowsResponse:
        asked.append(copy.deepcopy(request))
        return rows_pb2.ListDatasetRowsResponse(next_page_token="more" if len(asked) < 3 else "")

    with client_of("127.0.0.1:1") as client:
        stub: Any = SimpleNamespace(ListDatasetRows=listed)
        monkeypatch.setattr(Connections, "registry", replace(client.datasets._connections.registry, stub=stub))
        assert list(client.datasets.rows("rows/1")) == []
    assert [(each.page_size, each.page_token) for each in asked] == [(0, ""), (1000, "more"), (1000, "more")]


@on_loop
async def test_descriptions_change_and_find(tmp_path: Path) -> None:
    """What is given changes, the rest stays; a stale etag is a conflict; filters find."""
    async with running_registry(tmp_path) as registry:

        def use() -> None:
            with client_of(registry.address) as client:
                created = client.datasets.create("a", description="Polite.", tags=["x"], metadata={"owner": "me"})
                changed = client.datasets.update("a", tags=["y", "z"], etag=created.etag)
                assert (changed.description, changed.tags, dict(changed.metadata)) == (
                    "Polite.",
                    ("y", "z"),
                    {"owner": "me"},
                )
                with pytest.raises(Conflict):
                    client.datasets.update("a", description="", etag=created.etag)
                assert client.datasets.update("a", description="", metadata={}).metadata == {}
                with pytest.raises(InvalidArgument):
                    client.datasets.update("a")
                client.datasets.create("b", tags=["z"])
                assert [each.name[-1] for each in client.datasets.list(tags=["z"])] == ["a", "b"]
                assert [each.name[-1] for each in client.datasets.list(tags=["z", "y"])] == ["a"]
                assert list(client.datasets.list(shape=RowShape.TEXT)) == []

        await asyncio.to_thread(use)


@pytest.mark.parametrize(
    ("files", "path", "words"),
    [
        ({"a.jsonl": LINES}, "missing.jsonl", "is not a file"),
        ({"a.jsonl": LINES}, "owner/name", "datasets import hf://owner/name"),
        ({"set/README.md": b"x"}, "set", "no file with rows"),
        ({"set/a.jsonl": LINES, "set/b.jsonl": b'{"text": "x"}\n'}, "set", "b.jsonl:1"),
        ({"set/a.py": b"x"}, "set", "are not read"),
        ({"a.jsonl": LINES + b'{"prompt": "x", "completion": ""}'}, "a.jsonl", "a.jsonl:31 completion"),
        ({"a.jsonl": LINES + b'\xff\n{"prompt"'}, "a.jsonl", "2 of the rows"),
    ],
)
def test_bad_uploads_are_told_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], path: str, words: str
) -> None:
    """The registry is not even asked: its address is nobody's."""
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    with client_of("127.0.0.1:1") as client, pytest.raises(InvalidArgument) as caught:
        client.datasets.upload(path, "rows")
    assert words in str(caught.value)


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    """A link in a folder that leads elsewhere would upload what nobody put there."""
    write(tmp_path, {"set/a.jsonl": LINES, "secret.jsonl": LINES})
    (tmp_path / "set/b.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with client_of("127.0.0.1:1") as client, pytest.raises(InvalidArgument, match="no regular file of this folder"):
        client.datasets.upload(tmp_path / "set", "rows")


@on_loop
async def test_a_person_sees_what_is_in_a_data_set(tmp_path: Path) -> None:
    """Upload, show, rows, update and list, as a person uses them; a messy file shows its lines and what to do."""
    messy = LINES + b'{"prompt": "x"}\n' * 30
    write(tmp_path, {"good.jsonl": LINES, "messy.jsonl": messy, "pets/cat/1.png": image(), "pets/dog/1.png": image()})
    async with running_registry(tmp_path / "registry") as registry:

        async def run(*arguments: str) -> tuple[int, str]:
            command = [sys.executable, "-m", "tuneforge.cli", "datasets", *arguments, "--registry", registry.address]
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            return process.returncode or 0, output.decode()

        code, text = await run("upload", "messy.jsonl", "--dataset", "messy")
        assert code != 0
        assert "30 of the rows in messy.jsonl are malformed" in text
        assert text.count("Add `completion`.") == 20
        assert "messy.jsonl:31 completion: The column `completion` is missing" in text
        code, text = await run("upload", "good.jsonl", "--dataset", "good", "--validation", "0.3")
        assert (code, text.splitlines()[0]) == (0, f"good/1: 30 rows, PROMPT_COMPLETION, {len(LINES) / 1000:.3g} kB")
        assert "validation (by content, 0.3, seed 0)" in text
        code, text = await run("split", "good", "0.5", "--seed", "3")
        assert (code, text.splitlines()[0][:7]) == (0, "good/2:")
        assert "validation (by content, 0.5, seed 3)" in text
        code, text = await run("rows", "good/1", "--side", "validation", "--limit", "1")
        assert code == 0
        assert "good.jsonl:" in text
        assert "completion: c" in text
        code, text = await run("rows", "good", "--limit", "2", "--json")
        assert [json.loads(line)["content"] for line in text.splitlines()] == ROWS[:2]
        code, text = await run("upload", "pets", "--dataset", "pets")
        assert "labels:     2 different" in text
        assert (await run("update", "pets", "--tag", "cute", "--set", "owner=me"))[0] == 0
        code, text = await run("list", "--tag", "cute", "--shape", "IMAGE_LABEL")
        assert text.splitlines()[1].split()[:2] == ["pets", "pets/1"]
        code, text = await run("show", "pets")
        assert [line.split()[0] for line in text.splitlines()[:4]] == ["name:", "tags:", "metadata:", "rows:"]
        assert "IMAGES" in text
        assert (await run("update", "pets"))[0] != 0
        code, text = await run("diff", "good/1", "good/2")
        assert (code, text.splitlines()[0].split()) == (1, ["WHAT", "GOOD/1", "GOOD/2"])
        assert {"split.validation_ratio", "split.seed"} <= {line.split()[0] for line in text.splitlines()}
        assert (await run("diff", "good/2", "good", "--json")) == (0, "")
        code, text = await run("diff", "good", "pets", "--json")
        files = {each["what"]: each["one"] for each in map(json.loads, text.splitlines()) if "file " in each["what"]}
        assert set(files) == {"file good.jsonl", "file cat/1.png", "file dog/1.png"}
        assert files["file cat/1.png"] is None
