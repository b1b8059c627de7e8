"""Rows of every format in the registry: what is refused, how versions are divided, pages of rows, descriptions."""

import gzip
import json
import subprocess
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from services.registry.datasets import examining
from services.registry.folder import Folder
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, refused, running_registry
from tests.support.seaweedfs import EACH_HOME
from tests.unit.data.reading import image, parquet
from tuneforge.data.split import Split, side_of
from tuneforge.errors import Reason
from tuneforge.v1 import datasets_pb2 as pb
from tuneforge.v1 import rows_pb2

pytestmark = EACH_DATABASE

ROWS = [{"instruction": f"Say {number}.", "output": "word " * (number + 1)} for number in range(40)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


async def make(
    registry: RunningRegistry, files: dict[str, bytes], *, dataset: str = "", ratio: float = 0.0, seed: int = 0
) -> pb.DatasetVersion:
    """Makes a version of files, of a new data set unless one is named."""
    request = pb.CreateDatasetVersionRequest(
        parent=dataset or await registry.dataset("rows"), manifest=await registry.put_files(files)
    )
    if ratio:
        request.split.validation_ratio, request.split.seed = ratio, seed
    return await registry.stub.CreateDatasetVersion(request)


async def pages(registry: RunningRegistry, request: rows_pb2.ListDatasetRowsRequest) -> list[list[rows_pb2.DatasetRow]]:
    """Returns all pages of rows."""
    found = []
    while True:
        page = await registry.stub.ListDatasetRows(request)
        found.append(list(page.rows))
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


@EACH_HOME
@on_loop
async def test_every_format_makes_a_version(tmp_path: Path) -> None:
    """The version states format and shape, and the same rows have the same ids in every format."""
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    csv = "instruction,output\n" + "".join(f"{row['instruction']},{row['output']}\n" for row in ROWS)
    kinds = {
        "a.jsonl": (LINES, pb.DATA_FORMAT_JSONL),
        "a.jsonl.gz": (gzip.compress(LINES), pb.DATA_FORMAT_JSONL),
        "a.csv": (csv.encode(), pb.DATA_FORMAT_CSV),
        "a.parquet": (parquet(columns), pb.DATA_FORMAT_PARQUET),
    }
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset("rows")
        ids = set()
        for name, (content, kind) in kinds.items():
            version = await make(registry, {name: content}, dataset=dataset)
            assert (version.format, version.shape, version.rows) == (kind, pb.ROW_SHAPE_INSTRUCTION, 40)
            assert version.statistics.characters.smallest > 0
            [rows] = await pages(registry, rows_pb2.ListDatasetRowsRequest(parent=version.name))
            ids.add(tuple(row.row_id for row in rows))
        assert len(ids) == 1
        pets = await make(registry, {"cat/1.png": image(), "dog/2.png": image(color="blue")}, dataset=dataset)
        assert (pets.format, pets.shape) == (pb.DATA_FORMAT_IMAGES, pb.ROW_SHAPE_IMAGE_LABEL)
        assert dict(pets.statistics.labels) == {"cat": 1, "dog": 1}


@on_loop
async def test_faults_are_told_with_their_codes(tmp_path: Path) -> None:
    """`BadRequest` has file, line and code of each; the metadata counts all of them."""
    bad = LINES[:60] + b"\n" + b'{"instruction": "a"}\n' + b'{"instruction": "a", "output": ""}\n' * 30 + b'{"x'
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset("rows")
        manifest = await registry.put_files({"a.jsonl": bad, "b.bin": b"\0" * 9, "README.md": b"about"})
        request = pb.CreateDatasetVersionRequest(parent=dataset, manifest=manifest)
        error = await refused(registry.stub.CreateDatasetVersion(request), Reason.INVALID_DATA)
        assert error.fields[0].field == "b.bin"
        assert {each.reason for each in error.fields} >= {"UNKNOWN_FORMAT", "MALFORMED_JSON", "MISSING_COLUMN"}
        counts = dict(each.split("=") for each in error.metadata["codes"].split(","))
        assert counts["EMPTY_TARGET"] == "30"
        assert error.metadata["num_problems"] == "34"
        empty = await registry.put_files({"README.md": b"about"})
        request = pb.CreateDatasetVersionRequest(parent=dataset, manifest=empty)
        error = await refused(registry.stub.CreateDatasetVersion(request), Reason.INVALID_DATA)
        assert error.fields[0].reason == "DATASET_EMPTY"


@on_loop
async def test_a_version_is_divided_by_content(tmp_path: Path) -> None:
    """Rows lie on the side that library and seed say; another split of the same files is another version."""
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset("rows")
        plain = await make(registry, {"a.jsonl": LINES}, dataset=dataset)
        version = await make(registry, {"a.jsonl": LINES}, dataset=dataset, ratio=0.25, seed=7)
        same = await make(registry, {"a.jsonl": LINES}, dataset=dataset, ratio=0.25, seed=7)
        other = await make(registry, {"a.jsonl": LINES}, dataset=dataset, ratio=0.25, seed=8)
        assert [each.name[-1] for each in (plain, version, same, other)] == ["1", "2", "2", "3"]
        assert same == version
        assert (version.split.validation_ratio, version.split.seed) == (0.25, 7)
        request = rows_pb2.ListDatasetRowsRequest(parent=version.name, side=rows_pb2.SPLIT_SIDE_VALIDATION)
        [rows] = await pages(registry, request)
        assert len(rows) == version.statistics.validation_rows == 40 - version.statistics.train_rows > 0
        split = Split(validation_ratio=0.25, seed=7)
        assert {side_of(row.row_id, split) for row in rows} == {"VALIDATION"}
        turned = b"\n".join(reversed(LINES.splitlines()))
        again = await make(registry, {"b.jsonl": turned}, dataset=dataset, ratio=0.25, seed=7)
        request = rows_pb2.ListDatasetRowsRequest(parent=again.name, side=rows_pb2.SPLIT_SIDE_VALIDATION)
        [moved] = await pages(registry, request)
        assert {row.row_id for row in moved} == {row.row_id for row in rows}


@on_loop
async def test_files_may_divide_a_version_themselves(tmp_path: Path) -> None:
    """Names tell the part; a ratio beside them, and one that is out of range, are refused."""
    files = {"train.jsonl": LINES, "validation.jsonl": LINES[: LINES.index(b"\n") + 1]}
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset("rows")
        version = await make(registry, files, dataset=dataset)
        assert version.split.by_files
        assert (version.statistics.train_rows, version.statistics.validation_rows) == (40, 1)
        manifest = await registry.put_files(files)
        for ratio, seed, fields in (
            (0.6, 0, ["split.validation_ratio"]),
            (-0.1, -1, ["split.validation_ratio", "split.seed"]),
            (float("nan"), 0, ["split.validation_ratio"]),
        ):
            split = pb.DatasetSplit(validation_ratio=ratio, seed=seed)
            request = pb.CreateDatasetVersionRequest(parent=dataset, manifest=manifest, split=split)
            error = await refused(registry.stub.CreateDatasetVersion(request), Reason.INVALID_FIELD)
            assert fields_of(error) == fields
        split = pb.DatasetSplit(validation_ratio=0.2)
        request = pb.CreateDatasetVersionRequest(parent=dataset, manifest=manifest, split=split)
        await refused(registry.stub.CreateDatasetVersion(request), Reason.INVALID_DATA)


@on_loop
async def test_rows_are_walked_by_pages(tmp_path: Path) -> None:
    """Every row comes once, in order, with its file and line; filters and tokens that do not fit are refused."""
    async with running_registry(tmp_path) as registry:
        version = await make(registry, {"a.jsonl": LINES, "b.jsonl": LINES[: LINES.index(b"\n")]})
        request = rows_pb2.ListDatasetRowsRequest(parent=version.name, page_size=16)
        found = await pages(registry, request)
        assert [len(page) for page in found] == [16, 16, 9]
        rows = [row for page in found for row in page]
        assert [(row.file, row.line) for row in rows] == [*(("a.jsonl", n + 1) for n in range(40)), ("b.jsonl", 1)]
        assert [json.loads(row.content_json) for row in rows[:40]] == ROWS
        assert rows[0].row_id == rows[40].row_id
        prefix = rows[3].row_id[:12]
        request = rows_pb2.ListDatasetRowsRequest(parent=version.name, row_id_prefix=prefix)
        assert [[row.line for row in page] for page in await pages(registry, request)] == [[4]]
        first = await registry.stub.ListDatasetRows(rows_pb2.ListDatasetRowsRequest(parent=version.name, page_size=1))
        for change, reason in (
            ({"page_size": -1}, Reason.INVALID_FIELD),
            ({"row_id_prefix": "xyz"}, Reason.INVALID_FIELD),
            ({"side": 9}, Reason.INVALID_FIELD),
            ({"side": 1, "page_token": first.next_page_token}, Reason.INVALID_PAGE_TOKEN),
            ({"parent": f"{PROJECT}/datasets/none/versions/1"}, Reason.NOT_FOUND),
        ):
            request = rows_pb2.ListDatasetRowsRequest(parent=version.name)
            request.MergeFrom(rows_pb2.ListDatasetRowsRequest(**change))
            await refused(registry.stub.ListDatasetRows(request), reason)


@on_loop
async def test_huge_rows_come_cut(tmp_path: Path) -> None:
    """A page fits into a message however long its rows are."""
    lines = "".join(json.dumps({"prompt": f"p{n}", "completion": "x" * 300_000}) + "\n" for n in range(20)).encode()
    async with running_registry(tmp_path) as registry:
        version = await make(registry, {"a.jsonl": lines})
        [rows] = await pages(registry, rows_pb2.ListDatasetRowsRequest(parent=version.name))
        assert len(rows) == 20
        assert all(row.is_cut and len(row.content_json) < 70_000 for row in rows)


@on_loop
async def test_what_people_say_of_a_data_set_changes_by_mask_and_etag(tmp_path: Path) -> None:
    """Only what the mask names changes; a stale etag and what never changes are refused; filters find it."""
    async with running_registry(tmp_path) as registry:
        stub = registry.stub
        dataset = pb.Dataset(description="Polite rows.", tags=["b", "a"], metadata={"owner": "me"})
        created = await stub.CreateDataset(
            pb.CreateDatasetRequest(parent=PROJECT, dataset_id="greetings", dataset=dataset)
        )
        assert (list(created.tags), dict(created.metadata), created.etag) == (["a", "b"], {"owner": "me"}, "r0")
        wanted = pb.Dataset(name=created.name, description="x", tags=["chat"], etag=created.etag)
        request = pb.UpdateDatasetRequest(dataset=wanted, update_mask=FieldMask(paths=["tags"]), request_id="one")
        changed = await stub.UpdateDataset(request)
        assert (changed.description, list(changed.tags), changed.etag) == ("Polite rows.", ["chat"], "r1")
        assert await stub.UpdateDataset(request) == changed
        assert await stub.GetDataset(pb.GetDatasetRequest(name=created.name)) == changed
        request.request_id = "two"
        await refused(stub.UpdateDataset(request), Reason.ETAG_MISMATCH)
        for mask, given, fields in (
            ([], wanted, ["update_mask"]),
            (["creator"], wanted, ["update_mask"]),
            (["tags"], pb.Dataset(name=created.name, tags=[" x"], metadata={"No": ""}), None),
        ):
            request = pb.UpdateDatasetRequest(dataset=given, update_mask=FieldMask(paths=mask))
            error = await refused(stub.UpdateDataset(request), Reason.INVALID_FIELD)
            assert fields_of(error) == (fields or ["dataset.tags[0]", "dataset.metadata"])
        missing = pb.UpdateDatasetRequest(
            dataset=pb.Dataset(name=f"{PROJECT}/datasets/none"), update_mask=FieldMask(paths=["tags"])
        )
        await refused(stub.UpdateDataset(missing), Reason.NOT_FOUND)


@on_loop
async def test_data_sets_are_found_by_tag_text_and_shape(tmp_path: Path) -> None:
    """Filters hold together and across pages; malformed ones are refused."""
    async with running_registry(tmp_path) as registry:
        stub = registry.stub
        for number in range(4):
            dataset = pb.Dataset(description=f"Rows 100% {number}", tags=["all", f"t{number % 2}"])
            await stub.CreateDataset(
                pb.CreateDatasetRequest(parent=PROJECT, dataset_id=f"set-{number}", dataset=dataset)
            )
        await make(registry, {"a.jsonl": LINES}, dataset=f"{PROJECT}/datasets/set-3")

        async def ids(**filters: object) -> list[str]:
            wanted = pb.DatasetFilter(**filters)  # type: ignore[arg-type]  # any field
            request = pb.ListDatasetsRequest(parent=PROJECT, page_size=1, filter=wanted)
            found = []
            while True:
                page = await stub.ListDatasets(request)
                found += [each.name.rpartition("/")[2] for each in page.datasets]
                request.page_token = page.next_page_token
                if not page.next_page_token:
                    return found

        assert await ids(tags=["all"]) == ["set-0", "set-1", "set-2", "set-3"]
        assert await ids(tags=["all", "t1"]) == ["set-1", "set-3"]
        assert await ids(tags=["ALL"]) == []
        assert await ids(query="ROWS 100% 2") == ["set-2"]
        assert await ids(query="0_ 2") == []
        assert await ids(shape=pb.ROW_SHAPE_INSTRUCTION) == ["set-3"]
        for bad, field in (({"query": "x" * 201}, "query"), ({"shape": 99}, "shape"), ({"tags": ["x"] * 33}, "tags")):
            request = pb.ListDatasetsRequest(parent=PROJECT, filter=pb.DatasetFilter(**bad))
            assert fields_of(await refused(stub.ListDatasets(request), Reason.INVALID_FIELD)) == [f"filter.{field}"]


@on_loop
async def test_rows_that_exhaust_the_examiner_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the process that reads rows is ended, the call is refused with its code, and the service goes on."""
    monkeypatch.setattr(examining, "LONGEST_S", 0.001)
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset("rows")
        manifest = await registry.put_files({"a.jsonl": LINES})
        request = pb.CreateDatasetVersionRequest(parent=dataset, manifest=manifest)
        error = await refused(registry.stub.CreateDatasetVersion(request), Reason.INVALID_DATA)
        assert error.fields[0].reason == "LIMIT_EXCEEDED"
        monkeypatch.setattr(examining, "LONGEST_S", 60.0)
        assert (await registry.stub.CreateDatasetVersion(request)).rows == 40


def test_the_examiner_is_without_the_services_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process gets no variable of the service's environment but the paths that it needs."""
    monkeypatch.setenv("TUNEFORGE_TOKEN", "secret")
    seen = {}

    def run(command: list[str], *, env: dict[str, str], **others: object) -> None:
        seen.update(env)
        raise subprocess.TimeoutExpired(command, 1.0)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(examining.Exhausted):
        examining.ask(Folder({"a.jsonl": tmp_path}), {"kind": "examine", "split": [0.0, 0]})
    assert seen
    assert not any("TOKEN" in name or "secret" in value for name, value in seen.items())
