"""Data sets and their versions, over a real socket."""

import asyncio
import hashlib
import json
from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, refused, running_registry
from tests.support.seaweedfs import EACH_HOME
from tuneforge.errors import Reason
from tuneforge.v1 import datasets_pb2 as pb
from tuneforge.v1 import types_pb2

pytestmark = EACH_DATABASE

ROW = json.dumps({"prompt": "Say hello.", "completion": "Hello."}).encode() + b"\n"
CHAT_ROW = json.dumps(
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
).encode()


def create(dataset_id: str, *, request_id: str = "", description: str = "") -> pb.CreateDatasetRequest:
    """Returns the request that creates a data set."""
    dataset = pb.Dataset(description=description)
    return pb.CreateDatasetRequest(parent=PROJECT, dataset_id=dataset_id, dataset=dataset, request_id=request_id)


def version_of(parent: str, manifest: types_pb2.Manifest, *, request_id: str = "") -> pb.CreateDatasetVersionRequest:
    """Returns the request that makes a version."""
    return pb.CreateDatasetVersionRequest(parent=parent, manifest=manifest, request_id=request_id)


async def versions(registry: RunningRegistry, dataset: str, count: int) -> list[str]:
    """Makes that many versions with different rows and returns their names, oldest first."""
    names = []
    for number in range(count):
        manifest = await registry.put_files({"train.jsonl": ROW * (number + 1)})
        names.append((await registry.stub.CreateDatasetVersion(version_of(dataset, manifest))).name)
    return names


@on_loop
async def test_a_data_set_is_created_and_found(tmp_path: Path) -> None:
    """What was created is what Get and List give."""
    async with running_registry(tmp_path) as registry:
        created = await registry.stub.CreateDataset(create("greetings", description="Polite rows."))
        assert created.name == f"{PROJECT}/datasets/greetings"
        assert created.creator == "local"
        assert created.create_time.seconds > 0
        assert created.latest_version == ""
        assert await registry.stub.GetDataset(pb.GetDatasetRequest(name=created.name)) == created
        listed = await registry.stub.ListDatasets(pb.ListDatasetsRequest(parent=PROJECT))
        assert list(listed.datasets) == [created]


@on_loop
async def test_a_data_set_outlives_the_registry(tmp_path: Path) -> None:
    """What was acknowledged is there after a restart."""
    async with running_registry(tmp_path) as registry:
        created = await registry.stub.CreateDataset(create("greetings"))
    async with running_registry(tmp_path) as registry:
        assert await registry.stub.GetDataset(pb.GetDatasetRequest(name=created.name)) == created


@on_loop
async def test_all_wrong_fields_of_a_new_data_set_are_told_at_once(tmp_path: Path) -> None:
    """A malformed id and a description that is too long come in one answer."""
    async with running_registry(tmp_path) as registry:
        request = create("Not An Id", description="x" * 4097)
        error = await refused(registry.stub.CreateDataset(request), Reason.INVALID_FIELD)
        assert fields_of(error) == ["dataset_id", "dataset.description"]
        bad_parent = pb.CreateDatasetRequest(parent="default", dataset_id="a")
        await refused(registry.stub.CreateDataset(bad_parent), Reason.INVALID_NAME)


@on_loop
async def test_a_data_set_exists_once(tmp_path: Path) -> None:
    """The same id again is ALREADY_EXISTS, with the name to go on with."""
    async with running_registry(tmp_path) as registry:
        created = await registry.stub.CreateDataset(create("greetings"))
        error = await refused(registry.stub.CreateDataset(create("greetings")), Reason.ALREADY_EXISTS)
        assert error.metadata["name"] == created.name


@on_loop
async def test_a_repeated_request_gives_the_first_answer(tmp_path: Path) -> None:
    """The same request id and body change nothing; the same id with another body is refused."""
    async with running_registry(tmp_path) as registry:
        first = await registry.stub.CreateDataset(create("greetings", request_id="one"))
        assert await registry.stub.CreateDataset(create("greetings", request_id="one")) == first
        await refused(registry.stub.CreateDataset(create("partings", request_id="one")), Reason.REQUEST_ID_REUSED)
        listed = await registry.stub.ListDatasets(pb.ListDatasetsRequest(parent=PROJECT))
        assert [each.name for each in listed.datasets] == [first.name]


@on_loop
async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    """Each method that names a data set or a version says NOT_FOUND, and INVALID_NAME for what is no name."""
    async with running_registry(tmp_path) as registry:
        stub, missing = registry.stub, f"{PROJECT}/datasets/none"
        manifest = await registry.put_files({"train.jsonl": ROW})
        await refused(stub.GetDataset(pb.GetDatasetRequest(name=missing)), Reason.NOT_FOUND)
        await refused(stub.CreateDatasetVersion(version_of(missing, manifest)), Reason.NOT_FOUND)
        await refused(stub.ListDatasetVersions(pb.ListDatasetVersionsRequest(parent=missing)), Reason.NOT_FOUND)
        for version in ("1", "latest"):
            request = pb.GetDatasetVersionRequest(name=f"{missing}/versions/{version}")
            await refused(stub.GetDatasetVersion(request), Reason.NOT_FOUND)
        bad = pb.GetDatasetVersionRequest(name=f"{missing}/versions/0")
        await refused(stub.GetDatasetVersion(bad), Reason.INVALID_NAME)


@on_loop
async def test_lists_of_data_sets_are_walked_by_pages(tmp_path: Path) -> None:
    """Following the tokens gives each data set once, in order; other tokens and sizes are refused."""
    async with running_registry(tmp_path) as registry:
        stub = registry.stub
        for number in range(5):
            await registry.dataset(f"set-{number}")
        seen, token = [], ""
        while True:
            page = await stub.ListDatasets(pb.ListDatasetsRequest(parent=PROJECT, page_size=2, page_token=token))
            seen += [each.name.rpartition("/")[2] for each in page.datasets]
            token = page.next_page_token
            if not token:
                break
            other = pb.ListDatasetsRequest(parent="projects/other", page_token=token)
            await refused(stub.ListDatasets(other), Reason.INVALID_PAGE_TOKEN)
        assert seen == [f"set-{number}" for number in range(5)]
        negative = pb.ListDatasetsRequest(parent=PROJECT, page_size=-1)
        assert fields_of(await refused(stub.ListDatasets(negative), Reason.INVALID_FIELD)) == ["page_size"]


@EACH_HOME
@on_loop
async def test_a_version_is_made_from_rows(tmp_path: Path) -> None:
    """A version knows its files, its shape and its rows, and is the data set's latest."""
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset()
        manifest = await registry.put_files({"b.jsonl": ROW, "a.jsonl": ROW * 3})
        made = await registry.stub.CreateDatasetVersion(version_of(dataset, manifest))
        assert made.name == f"{dataset}/versions/1"
        assert (made.shape, made.rows, made.size_bytes) == (pb.ROW_SHAPE_PROMPT_COMPLETION, 4, 4 * len(ROW))
        assert [file.path for file in made.manifest.files] == ["a.jsonl", "b.jsonl"]
        assert len(made.manifest.digest) == 64
        for name in (made.name, f"{dataset}/versions/latest"):
            assert await registry.stub.GetDatasetVersion(pb.GetDatasetVersionRequest(name=name)) == made
        assert (await registry.stub.GetDataset(pb.GetDatasetRequest(name=dataset))).latest_version == made.name


@on_loop
async def test_the_same_content_is_the_same_version(tmp_path: Path) -> None:
    """Sent again, in another order, with or without a request id, and at the same time: one version."""
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset()
        manifest = await registry.put_files({"a.jsonl": ROW, "b.jsonl": ROW * 2})
        turned = types_pb2.Manifest(files=reversed(manifest.files))
        made = await asyncio.gather(
            *(registry.stub.CreateDatasetVersion(version_of(dataset, each)) for each in (manifest, turned) * 4),
            registry.stub.CreateDatasetVersion(version_of(dataset, turned, request_id="one")),
        )
        assert {version.name for version in made} == {f"{dataset}/versions/1"}
        other = await registry.put_files({"a.jsonl": ROW * 5})
        error_call = registry.stub.CreateDatasetVersion(version_of(dataset, other, request_id="one"))
        await refused(error_call, Reason.REQUEST_ID_REUSED)
        listed = await registry.stub.ListDatasetVersions(pb.ListDatasetVersionsRequest(parent=dataset))
        assert len(listed.versions) == 1


@on_loop
async def test_versions_are_walked_newest_first(tmp_path: Path) -> None:
    """Pages of versions go from the newest to the oldest, also while new ones are made."""
    async with running_registry(tmp_path) as registry:
        stub, dataset = registry.stub, await registry.dataset()
        names = await versions(registry, dataset, 5)
        first = await stub.ListDatasetVersions(pb.ListDatasetVersionsRequest(parent=dataset, page_size=3))
        assert [each.name for each in first.versions] == names[:1:-1]
        manifest = await registry.put_files({"train.jsonl": ROW * 77})
        await stub.CreateDatasetVersion(version_of(dataset, manifest))
        request = pb.ListDatasetVersionsRequest(parent=dataset, page_token=first.next_page_token)
        rest = await stub.ListDatasetVersions(request)
        assert [each.name for each in rest.versions] == names[1::-1]
        assert rest.next_page_token == ""
        for change, reason in (({"page_size": -1}, Reason.INVALID_FIELD), ({"page_token": "x"}, "INVALID_PAGE_TOKEN")):
            request = pb.ListDatasetVersionsRequest(parent=dataset, **change)
            await refused(stub.ListDatasetVersions(request), Reason(reason))


@EACH_HOME
@on_loop
async def test_malformed_rows_are_all_told_with_their_lines(tmp_path: Path) -> None:
    """One INVALID_DATA answer names the lines of every file and what to change."""
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset()
        files = {"a.jsonl": ROW + b"{broken\n" + ROW + b'{"prompt": "x"}\n', "b.jsonl": b"\xff\xfe\n"}
        manifest = await registry.put_files(files)
        error = await refused(registry.stub.CreateDatasetVersion(version_of(dataset, manifest)), Reason.INVALID_DATA)
        places = [field.split(":")[:2] for field in fields_of(error)]
        assert places == [["a.jsonl", "2"], ["a.jsonl", "4"], ["b.jsonl", "1"]]
        assert all(violation.description for violation in error.fields)
        listed = await registry.stub.ListDatasetVersions(pb.ListDatasetVersionsRequest(parent=dataset))
        assert not listed.versions


@on_loop
async def test_an_answer_with_many_malformed_rows_stays_deliverable(tmp_path: Path) -> None:
    """Thousands of bad lines give an answer that fits into a call's trailers and counts the rest."""
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset()
        manifest = await registry.put_files({f"{n}.jsonl": b"{broken\n" * 2000 + b"%d\n" % n for n in range(9)})
        error = await refused(registry.stub.CreateDatasetVersion(version_of(dataset, manifest)), Reason.INVALID_DATA)
        told = len(error.fields) - 1
        assert told >= 10
        assert error.fields[-1].description == f"and {9 * 2001 - told} more problems"


@on_loop
async def test_files_of_different_shapes_are_refused(tmp_path: Path) -> None:
    """A version has one shape; the answer says which file has which."""
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset()
        manifest = await registry.put_files({"a.jsonl": ROW, "b.jsonl": CHAT_ROW})
        error = await refused(registry.stub.CreateDatasetVersion(version_of(dataset, manifest)), Reason.INVALID_DATA)
        assert fields_of(error) == ["b.jsonl:1"]
        assert "shape is MESSAGES" in error.fields[0].description
        assert error.fields[0].reason == "MIXED_SHAPES"


@on_loop
async def test_malformed_manifests_are_refused(tmp_path: Path) -> None:
    """An empty manifest, paths that escape, false digests and sizes are told by entry."""
    async with running_registry(tmp_path) as registry:
        stub, dataset = registry.stub, await registry.dataset()
        empty = await refused(
            stub.CreateDatasetVersion(version_of(dataset, types_pb2.Manifest())), Reason.INVALID_FIELD
        )
        assert fields_of(empty) == ["manifest.files"]
        bad = types_pb2.Manifest()
        bad.files.add(path="../x", sha256="0" * 64, size_bytes=1)
        bad.files.add(path="ok", sha256="short", size_bytes=-1)
        error = await refused(stub.CreateDatasetVersion(version_of(dataset, bad)), Reason.INVALID_FIELD)
        expected = ["manifest.files[0].path", "manifest.files[1].sha256", "manifest.files[1].size_bytes"]
        assert fields_of(error) == expected


@on_loop
async def test_digest_and_sizes_must_be_those_of_the_blobs(tmp_path: Path) -> None:
    """A wrong digest over the manifest and a size that is not the blob's are DIGEST_MISMATCH."""
    async with running_registry(tmp_path) as registry:
        stub, dataset = registry.stub, await registry.dataset()
        manifest = await registry.put_files({"a.jsonl": ROW})
        manifest.digest = "0" * 64
        await refused(stub.CreateDatasetVersion(version_of(dataset, manifest)), Reason.DIGEST_MISMATCH)
        manifest.digest = ""
        manifest.files[0].size_bytes += 1
        error = await refused(stub.CreateDatasetVersion(version_of(dataset, manifest)), Reason.DIGEST_MISMATCH)
        assert error.metadata["path"] == "a.jsonl"


@on_loop
async def test_missing_blobs_are_named(tmp_path: Path) -> None:
    """BLOB_MISSING carries the digests that are to be uploaded; another project's blob is missing too."""
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset()
        manifest = await registry.put_files({"a.jsonl": ROW}, project="projects/other")
        absent = hashlib.sha256(b"absent").hexdigest()
        manifest.files.add(path="b.jsonl", sha256=absent, size_bytes=6)
        error = await refused(registry.stub.CreateDatasetVersion(version_of(dataset, manifest)), Reason.BLOB_MISSING)
        assert error.metadata["missing"].split(",") == [manifest.files[0].sha256, absent]
        assert error.metadata["num_missing"] == "2"


@on_loop
async def test_pages_of_large_versions_stay_deliverable(tmp_path: Path) -> None:
    """Versions with thousands of files come in pages that a client takes, each of them once."""
    async with running_registry(tmp_path) as registry:
        stub, dataset = registry.stub, await registry.dataset()
        digest = await registry.put(ROW)
        for number in range(1, 4):
            manifest = types_pb2.Manifest()
            for file in range(9_000 + number):
                manifest.files.add(path=f"part-{'x' * 150}-{file:05}.jsonl", sha256=digest, size_bytes=len(ROW))
            await stub.CreateDatasetVersion(version_of(dataset, manifest))
        seen, token = [], ""
        while True:
            request = pb.ListDatasetVersionsRequest(parent=dataset, page_size=1000, page_token=token)
            page = await stub.ListDatasetVersions(request)
            assert len(page.versions) == 1
            seen += [len(version.manifest.files) for version in page.versions]
            token = page.next_page_token
            if not token:
                break
        assert seen == [9_003, 9_002, 9_001]
