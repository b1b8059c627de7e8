"""Imports from a real S3 server that end halfway: what arrived is kept, what changed is not mixed with it."""

import hashlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.elsewhere import Outcome, dataset_request, elsewhere, followed
from tests.support.event_loop import on_loop
from tests.support.registry import RunningRegistry, refused, running_registry
from tests.support.s3_proxy import Fault, Proxy, faulty_proxy
from tests.support.seaweedfs import Bucket
from tuneforge.errors import Reason

pytestmark = pytest.mark.heavy

CARD = b"---\nconfigs:\n- {config_name: en, data_files: en/*.jsonl}\n- {config_name: no, data_files: b.jsonl}\n---\n"


def rows(count: int, word: str = "row") -> bytes:
    """Returns that many rows."""
    lines = (json.dumps({"prompt": f"{word} {number}", "completion": "yes"}) + "\n" for number in range(count))
    return "".join(lines).encode()


LARGE = rows(60_000, "a row that is a little longer than others")
"""More than two of the pieces that an import writes."""


@dataclass
class World:
    """A registry that may fetch from a bucket, with what breaks between the two."""

    registry: RunningRegistry
    bucket: Bucket
    proxy: Proxy
    dataset: str

    def put(self, key: str, content: bytes) -> None:
        """Stores an object."""
        self.bucket.client.put_object(self.bucket.name, key, io.BytesIO(content), len(content))

    async def fetch(self, **fields: str) -> Outcome:
        """Imports everything below `set`."""
        request = dataset_request(self.dataset, f"s3://{self.bucket.name}/set", **fields)
        return await followed(self.registry.stub.ImportDatasetVersion(request))

    def gets(self, key: str) -> int:
        """Returns how often an object was asked for."""
        return sum(method == "GET" and key in target for method, target in self.proxy.seen)


@asynccontextmanager
async def importing(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Serves all of it."""
    monkeypatch.setenv("S3_ACCESS", bucket.access_key)
    monkeypatch.setenv("S3_SECRET", bucket.secret_key)
    with elsewhere(folder / "there") as there, faulty_proxy(bucket) as proxy:
        there.allowed["s3"] = {
            "default": {
                "endpoint": proxy.endpoint,
                "region": bucket.region,
                "access_key": {"env": "S3_ACCESS"},
                "secret_key": {"env": "S3_SECRET"},
            }
        }
        async with running_registry(folder / "data", sources=there.settings()) as registry:
            yield World(registry, bucket, proxy, await registry.dataset())


@on_loop
async def test_what_is_refused_halfway_goes_on_with_the_rest(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first object is stored and not fetched again when the second one, refused at first, is allowed."""
    async with importing(tmp_path, bucket, monkeypatch) as world:
        world.put("set/a.jsonl", rows(3))
        world.put("set/b.jsonl", rows(2, "other"))
        world.proxy.faults = [Fault("GET", part="b.jsonl", status=403, code="AccessDenied")]
        error = await refused(world.fetch(), Reason.SOURCE_DENIED)
        assert f"s3://{bucket.name}/set is refused: AccessDenied" in error.message
        assert bucket.secret_key not in str(error)
        done = await world.fetch()
        assert done.version.rows == 5
        assert (world.gets("a.jsonl"), world.gets("b.jsonl")) == (1, 2)


@on_loop
async def test_what_broke_off_goes_on_where_it_stopped(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the rest of a large object is asked for."""
    async with importing(tmp_path, bucket, monkeypatch) as world:
        world.put("set/large.jsonl", LARGE)
        world.proxy.faults = [Fault("GET", part="large.jsonl", kind="truncate")]
        await refused(world.fetch(), Reason.SOURCE_UNAVAILABLE)
        before = world.proxy.moved_bytes
        done = await world.fetch()
        assert done.version.manifest.files[0].sha256 == hashlib.sha256(LARGE).hexdigest()
        assert world.proxy.moved_bytes - before < 0.8 * len(LARGE)


@on_loop
async def test_what_changed_meanwhile_is_fetched_anew(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two tries, or between the list and the reading: no version has parts of both."""
    async with importing(tmp_path, bucket, monkeypatch) as world:
        world.put("set/large.jsonl", LARGE)
        world.proxy.faults = [Fault("GET", part="large.jsonl", kind="truncate")]
        await refused(world.fetch(), Reason.SOURCE_UNAVAILABLE)
        other = LARGE.replace(b"yes", b"no!")
        world.put("set/large.jsonl", other)
        world.proxy.faults = [Fault("GET", part="large.jsonl", status=412, code="PreconditionFailed")]
        error = await refused(world.fetch(), Reason.SOURCE_UNAVAILABLE)
        assert "changed meanwhile" in error.message
        done = await world.fetch()
        assert done.version.manifest.files[0].sha256 == hashlib.sha256(other).hexdigest()


@on_loop
async def test_a_folder_of_the_hub_that_lies_in_a_bucket_is_read_by_its_card(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configurations are those of the card, as on the hub; without the card, which is refused, nothing is taken."""
    async with importing(tmp_path, bucket, monkeypatch) as world:
        world.put("set/README.md", CARD)
        world.put("set/en/a.jsonl", rows(3))
        world.put("set/b.jsonl", rows(2, "other"))
        world.proxy.faults = [Fault("GET", part="README.md", status=403, code="AccessDenied")]
        await refused(world.fetch(source_config="en"), Reason.SOURCE_DENIED)
        error = await refused(world.fetch(), Reason.SOURCE_NOT_FOUND)
        assert "choose one of en, no" in error.message
        done = await world.fetch(source_config="en")
        assert [file.path for file in done.version.manifest.files] == ["en/a.jsonl"]
