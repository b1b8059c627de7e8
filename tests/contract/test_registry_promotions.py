"""Promotion to a deploy location over a real socket: states, idempotence, what is refused, what is left alone."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import minio
import pytest

from services.registry.promotions.settings import PromotionSettings
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, refused, running_registry
from tests.support.seaweedfs import Bucket
from tests.support.tiny_model import make_tiny_model
from tuneforge.errors import Reason
from tuneforge.v1 import datasets_pb2, events_pb2, lineage_pb2, models_pb2, retention_pb2, types_pb2
from tuneforge.v1 import promotions_pb2 as pb

pytestmark = EACH_DATABASE

MODEL = f"{PROJECT}/models/tiny"
PATH = "support/router/tickets"
IMPORTED = f"{MODEL}/versions/1"
PUBLISHED = f"{MODEL}/versions/2"
COMPLETED, FAILED = pb.PROMOTION_STATE_COMPLETED, pb.PROMOTION_STATE_FAILED
NOT_PROMOTED = pb.PROMOTION_STATE_NOT_PROMOTED


@dataclass(frozen=True, slots=True)
class Promoting:
    """A registry with an imported version 1 and version 2 of `job-7`, and a deploy folder."""

    registry: RunningRegistry
    deploy: Path

    async def promote(self, version: str = PUBLISHED, path: str = PATH, **fields: object) -> pb.Promotion:
        """Asks for a promotion."""
        values: dict[str, object] = {"name": version, "path": path, **fields}
        return await self.registry.stub.PromoteVersion(pb.PromoteVersionRequest(**values))  # type: ignore[arg-type]

    async def unpromote(self, version: str = PUBLISHED) -> pb.Promotion:
        """Asks for the end of a promotion."""
        return await self.registry.stub.UnpromoteVersion(pb.UnpromoteVersionRequest(name=version, reason="retired"))

    async def get(self, version: str = PUBLISHED) -> pb.Promotion:
        """Returns how it stands."""
        return await self.registry.stub.GetPromotion(pb.GetPromotionRequest(name=f"{version}/promotion"))

    async def ended(self, asked: Awaitable[pb.Promotion]) -> pb.Promotion:
        """Waits until what was asked for has ended."""
        promotion = await asked
        while promotion.state in {pb.PROMOTION_STATE_IN_PROGRESS, pb.PROMOTION_STATE_DELETING}:
            await asyncio.sleep(0.005)
            promotion = await self.get(promotion.version)
        return promotion

    @property
    def place(self) -> Path:
        """Where version 2 goes."""
        return self.deploy / PATH / "job-7"


@asynccontextmanager
async def promoting(folder: Path, settings: PromotionSettings | None = None) -> AsyncIterator[Promoting]:
    """Serves such a registry; a second time it goes on with what is there."""
    deploy = folder / "deploy"
    where = settings or PromotionSettings(folder=deploy)
    is_new = not (folder / "data").exists()
    async with running_registry(folder / "data", promotions=where) as registry:
        if is_new:
            first = await registry.imported(await registry.model(), make_tiny_model(folder / "model"))
            request = models_pb2.PublishVersionRequest(
                parent=MODEL,
                manifest=first.manifest,
                kind=events_pb2.ARTIFACT_KIND_MODEL,
                lineage=models_pb2.Lineage(job=f"{PROJECT}/jobs/job-7", attempt=1),
            )
            await registry.stub.PublishVersion(request)
        yield Promoting(registry, deploy)


def check_copy(place: Path, manifest: dict[str, object], files: dict[str, str]) -> None:
    """Holds a copy against its manifest and against the digests of the version."""
    listed = {entry["path"]: entry["sha256"] for entry in manifest["files"]}  # type: ignore[attr-defined]
    assert listed == files
    found = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
    assert set(found) == {*files, "tuneforge-manifest.json"}
    for name, sha256 in files.items():
        assert hashlib.sha256(found[name].read_bytes()).hexdigest() == sha256


@on_loop
async def test_a_version_is_copied_as_a_whole_and_taken_away_again(tmp_path: Path) -> None:
    """All states in order, with who and why; the copy has the version's bytes; afterwards nothing is left."""
    async with promoting(tmp_path) as world:
        assert (await world.get()).state == NOT_PROMOTED
        await refused(world.unpromote(), Reason.WRONG_STATE)
        begun = await world.promote(reason="first release")
        assert begun.destination == f"{PATH}/job-7"
        done = await world.ended(world.promote())
        assert (done.state, done.message, done.path) == (COMPLETED, "", PATH)
        version = await world.registry.stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=PUBLISHED))
        manifest = json.loads((world.place / "tuneforge-manifest.json").read_text())
        assert (manifest["version"], manifest["digest"]) == (PUBLISHED, version.manifest.digest)
        check_copy(world.place, manifest, {file.path: file.sha256 for file in version.manifest.files})
        assert done.num_files == len(version.manifest.files)
        gone = await world.ended(world.unpromote())
        assert gone.state == NOT_PROMOTED
        assert not list(world.deploy.rglob("*.json")), "nothing is left"
        await refused(world.unpromote(), Reason.WRONG_STATE)
        again = await world.ended(world.promote())
        assert again.state == COMPLETED
        told = [
            (pb.PromotionState.Name(each.state).removeprefix("PROMOTION_STATE_"), each.actor, each.reason)
            for each in reversed(again.changes)
        ]
        assert told == [
            ("IN_PROGRESS", "local", "first release"),
            ("COMPLETED", "registry", ""),
            ("DELETING", "local", "retired"),
            ("NOT_PROMOTED", "registry", ""),
            ("IN_PROGRESS", "local", ""),
            ("COMPLETED", "registry", ""),
        ]


@on_loop
async def test_promoting_what_is_promoted_changes_nothing(tmp_path: Path) -> None:
    """The same answer, also for many at once; another path, or other files, are WRONG_STATE until it is unpromoted."""
    async with promoting(tmp_path) as world:
        await asyncio.gather(*(world.promote() for _ in range(10)))
        done = await world.ended(world.promote())
        assert len(done.changes) == 2
        inode = world.place.stat().st_ino
        assert await world.promote() == done
        assert world.place.stat().st_ino == inode
        await refused(world.promote(path="support/router/other"), Reason.WRONG_STATE)
        await refused(world.promote(patterns=["*.json"]), Reason.WRONG_STATE)
        request = pb.PromoteVersionRequest(name=IMPORTED, path=PATH, request_id="one")
        first = await world.registry.stub.PromoteVersion(request)
        assert first.destination == f"{PATH}/tiny-1"
        await world.ended(world.get(IMPORTED))
        assert await world.registry.stub.PromoteVersion(request) == first
        listed = await world.registry.stub.ListPromotions(pb.ListPromotionsRequest(parent=PROJECT, page_size=1))
        rest = pb.ListPromotionsRequest(parent=PROJECT, page_size=1, page_token=listed.next_page_token)
        both = [*listed.promotions, *(await world.registry.stub.ListPromotions(rest)).promotions]
        assert [each.version for each in both] == [IMPORTED, PUBLISHED]
        only_failed = pb.ListPromotionsRequest(parent=PROJECT, states=[FAILED])
        assert not (await world.registry.stub.ListPromotions(only_failed)).promotions
        unknown = pb.ListPromotionsRequest(parent=PROJECT, states=[FAILED, 0, 99])  # type: ignore[list-item]
        error = await refused(world.registry.stub.ListPromotions(unknown), Reason.INVALID_FIELD)
        assert fields_of(error) == ["states[1]", "states[2]"]


@on_loop
async def test_a_failed_promotion_shows_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    """What is in the way is named and left alone; when it is gone, the same call succeeds."""
    async with promoting(tmp_path) as world:
        (world.deploy / "support").mkdir(parents=True)
        (world.deploy / "support/router").write_text("a file where a folder should be")
        failed = await world.ended(world.promote())
        assert failed.state == FAILED
        assert "cannot be written" in failed.message
        await refused(world.unpromote(), Reason.WRONG_STATE)
        (world.deploy / "support/router").unlink()
        world.place.mkdir(parents=True)
        (world.place / "mine.txt").write_text("of somebody else")
        failed = await world.ended(world.promote())
        assert (failed.state, "holds something else" in failed.message) == (FAILED, True)
        assert (world.place / "mine.txt").read_text() == "of somebody else"
        shutil.rmtree(world.place)
        assert (await world.ended(world.promote())).state == COMPLETED


@on_loop
async def test_an_unpromotion_that_fails_leaves_it_completed(tmp_path: Path) -> None:
    """A copy that somebody has replaced is left alone, the state returns to COMPLETED and says why."""
    async with promoting(tmp_path) as world:
        await world.ended(world.promote())
        manifest = world.place / "tuneforge-manifest.json"
        kept = manifest.read_bytes()
        manifest.write_text("{}")
        failed = await world.ended(world.unpromote())
        assert (failed.state, "holds something else" in failed.message) == (COMPLETED, True)
        assert (world.place / "config.json").exists()
        manifest.write_bytes(kept)
        assert (await world.ended(world.unpromote())).state == NOT_PROMOTED
        assert not world.place.exists()


@on_loop
async def test_a_damaged_blob_is_never_promoted(tmp_path: Path) -> None:
    """One changed byte in a stored blob: FAILED, and nothing is visible."""
    async with promoting(tmp_path) as world:
        version = await world.registry.stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=PUBLISHED))
        weights = next(file for file in version.manifest.files if file.path.endswith(".safetensors"))
        [blob] = [path for path in (tmp_path / "data").rglob(f"{weights.sha256}*") if path.is_file()]
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.chmod(0o600)
        blob.write_bytes(content)
        failed = await world.ended(world.promote())
        assert failed.state == FAILED
        assert not world.place.exists()
        assert not list(world.deploy.rglob("*.json"))


@on_loop
async def test_what_cannot_be_promoted_is_refused(tmp_path: Path) -> None:
    """No version (a failed job has none), no path, no file, malformed patterns, a place that is taken, no location."""
    async with promoting(tmp_path) as world:
        await refused(world.promote(f"{MODEL}/versions/9"), Reason.NOT_FOUND)
        await refused(world.get(f"{MODEL}/versions/9"), Reason.NOT_FOUND)
        await refused(world.promote(path=""), Reason.NOT_PROMOTABLE)
        await refused(world.promote(patterns=["*.onnx"]), Reason.NOT_PROMOTABLE)
        error = await refused(world.promote(path="/a/b/c", patterns=["../*", ""]), Reason.INVALID_FIELD)
        assert fields_of(error) == ["path", "patterns[0]", "patterns[1]"]
        await world.ended(world.promote())
        other = await world.registry.model("other")
        version = await world.registry.stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=PUBLISHED))
        project = "projects/elsewhere"
        await world.registry.model("tiny", project=project)
        manifest = await world.registry.put_files(
            {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}, project=project
        )
        request = models_pb2.PublishVersionRequest(
            parent=f"{project}/models/tiny",
            manifest=manifest,
            kind=version.kind,
            lineage=models_pb2.Lineage(job=f"{project}/jobs/job-7", attempt=1),
        )
        taken = (await world.registry.stub.PublishVersion(request)).name
        error = await refused(world.promote(taken), Reason.NOT_PROMOTABLE)
        assert "which is taken" in error.message
        assert PUBLISHED not in error.message, "what other projects have is not told"
        assert other
    async with running_registry(tmp_path / "data") as registry:
        asked = pb.PromoteVersionRequest(name=IMPORTED, path=PATH)
        error = await refused(registry.stub.PromoteVersion(asked), Reason.NOT_PROMOTABLE)
        assert "TUNEFORGE_REGISTRY_DEPLOY_LOCATION" in error.message


@on_loop
async def test_neither_revoked_nor_deleted_versions_are_promoted(tmp_path: Path) -> None:
    """A version made from revoked data is REVOKED, a deleted one NOT_FOUND; a promoted one is not deleted."""
    async with promoting(tmp_path) as world:
        stub = world.registry.stub
        rows = await world.registry.put_files({"a.jsonl": json.dumps({"prompt": "a", "completion": "b"}).encode()})
        asked = datasets_pb2.CreateDatasetVersionRequest(parent=await world.registry.dataset("rows"), manifest=rows)
        dataset = await stub.CreateDatasetVersion(asked)
        first = await stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=IMPORTED))
        learned = types_pb2.VersionRef(version=dataset.name, digest=dataset.manifest.digest)
        request = models_pb2.PublishVersionRequest(
            parent=MODEL,
            manifest=first.manifest,
            kind=first.kind,
            lineage=models_pb2.Lineage(job=f"{PROJECT}/jobs/job-8", attempt=1, dataset=learned),
        )
        tainted = (await stub.PublishVersion(request)).name
        await stub.RevokeDataset(lineage_pb2.RevokeDatasetRequest(name=dataset.name, reason="withdrawn"))
        await refused(world.promote(tainted), Reason.REVOKED)
        await world.ended(world.promote())
        delete = retention_pb2.DeleteModelVersionRequest(name=PUBLISHED)
        error = await refused(stub.DeleteModelVersion(delete), Reason.IN_USE)
        assert "promotion" in str(error)
        delete.name = IMPORTED
        await stub.DeleteModelVersion(delete)
        await refused(world.promote(IMPORTED), Reason.NOT_FOUND)


@on_loop
async def test_a_bucket_takes_copies_too(tmp_path: Path, bucket: Bucket) -> None:
    """In a bucket the manifest makes a copy visible: it is there last, and nothing is left after an unpromotion."""
    settings = PromotionSettings(s3=bucket.settings(prefix="deploy"))
    async with promoting(tmp_path, settings) as world:
        done = await world.ended(world.promote(patterns=["*.json"]))
        assert (done.state, done.message) == (COMPLETED, "")
        root = f"deploy/{PATH}/job-7/"
        names = {entry.object_name for entry in bucket.client.list_objects(bucket.name, recursive=True)}
        response = bucket.client.get_object(bucket.name, f"{root}tuneforge-manifest.json")
        manifest = json.loads(response.read())
        response.close()
        assert names == {root + entry["path"] for entry in manifest["files"]} | {f"{root}tuneforge-manifest.json"}
        for entry in manifest["files"]:
            response = bucket.client.get_object(bucket.name, root + entry["path"])
            assert hashlib.sha256(response.read()).hexdigest() == entry["sha256"]
            response.close()
        gone = await world.ended(world.unpromote())
        assert (gone.state, gone.message) == (NOT_PROMOTED, "")
        assert not list(bucket.client.list_objects(bucket.name, recursive=True))
        with pytest.raises(minio.S3Error):
            bucket.client.stat_object(bucket.name, f"{root}tuneforge-manifest.json")
