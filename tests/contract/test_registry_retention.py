"""Retention: pins, expirations, deletions that name who needs a thing, and a collector that frees the rest only."""

import asyncio
import hashlib
import io
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from services.grpckit.folder_lock import StartRefused
from services.registry.blobs.home import new_place
from services.registry.blobs.s3 import S3Store
from services.registry.blobs.settings import StorageSettings
from services.registry.retention import collector
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, folder_files, pieces, refused, running_registry
from tests.support.seaweedfs import EACH_HOME, Bucket, s3_of_test
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model, write_rows
from tuneforge.errors import Reason
from tuneforge.v1 import (
    aliases_pb2,
    blobs_pb2,
    datasets_pb2,
    events_pb2,
    gates_pb2,
    models_pb2,
    types_pb2,
)
from tuneforge.v1 import (
    retention_pb2 as pb,
)

pytestmark = EACH_DATABASE

RESULT = f"{PROJECT}/models/result"
NEEDED = "kept for the audit"


@asynccontextmanager
async def registry_with(data: Path, *, grace_s: float = 3600.0) -> AsyncIterator[RunningRegistry]:
    """Serves a registry that collects only when asked to."""
    storage = StorageSettings(s3=s3_of_test(), collect_every_s=0, grace_s=grace_s)
    async with running_registry(data, storage=storage) as registry:
        yield registry


async def rows_version(registry: RunningRegistry, dataset: str, folder: Path, count: int = 8) -> str:
    """Makes a version of a data set and returns its name."""
    content = write_rows(folder / f"{count}.jsonl", count).read_bytes()
    manifest = await registry.put_files({"train.jsonl": content})
    request = datasets_pb2.CreateDatasetVersionRequest(parent=dataset, manifest=manifest)
    return (await registry.stub.CreateDatasetVersion(request)).name


def stored_digests(registry: RunningRegistry) -> list[str]:
    """Returns the digests of all contents in the home, one for each content."""
    settings = s3_of_test()
    if settings is not None:
        places = [each.place for each in S3Store(settings).listing()]
    else:
        places = [str(path) for path in (registry.data / "blobs").glob("*/*")]
    return sorted(place.rpartition("/")[2].partition(".")[0] for place in places)


@on_loop
async def test_a_deleted_version_is_gone_and_its_number_stays_taken(tmp_path: Path) -> None:
    """It is found by no name, list or content; the same content comes again under the next number."""
    async with registry_with(tmp_path / "data") as registry:
        dataset = await registry.dataset()
        first = await rows_version(registry, dataset, tmp_path)
        deletion = await registry.stub.DeleteDatasetVersion(
            pb.DeleteDatasetVersionRequest(name=first, reason="wrong export", request_id="once")
        )
        assert (deletion.name, deletion.reason, deletion.actor, deletion.num_versions) == (
            first,
            "wrong export",
            "local",
            1,
        )
        again = await registry.stub.DeleteDatasetVersion(
            pb.DeleteDatasetVersionRequest(name=first, reason="wrong export", request_id="once")
        )
        assert again == deletion
        await refused(
            registry.stub.GetDatasetVersion(datasets_pb2.GetDatasetVersionRequest(name=first)), Reason.NOT_FOUND
        )
        await refused(registry.stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=first)), Reason.NOT_FOUND)
        listed = await registry.stub.ListDatasetVersions(datasets_pb2.ListDatasetVersionsRequest(parent=dataset))
        assert not listed.versions
        assert not (await registry.stub.GetDataset(datasets_pb2.GetDatasetRequest(name=dataset))).latest_version
        assert await rows_version(registry, dataset, tmp_path) == f"{dataset}/versions/2"


@on_loop
async def test_what_is_needed_is_not_deleted_and_who_needs_it_is_named(tmp_path: Path) -> None:
    """An alias, a pin, a version made from it and a gate hold a version; each is named, and gone they let it go."""
    async with registry_with(tmp_path / "data") as registry:
        stub = registry.stub
        rows = await rows_version(registry, await registry.dataset(), tmp_path)
        base = await registry.imported(await registry.model("base"), make_tiny_model(tmp_path / "base"))
        digest = (await stub.GetDatasetVersion(datasets_pb2.GetDatasetVersionRequest(name=rows))).manifest.digest
        made = await stub.PublishVersion(
            models_pb2.PublishVersionRequest(
                parent=RESULT,
                manifest=await registry.put_files(folder_files(make_tiny_adapter(tmp_path / "adapter"))),
                kind=events_pb2.ARTIFACT_KIND_ADAPTER,
                lineage=models_pb2.Lineage(
                    base=types_pb2.VersionRef(version=base.name, digest=base.manifest.digest),
                    dataset=types_pb2.VersionRef(version=rows, digest=digest),
                    job=f"{PROJECT}/jobs/job-1",
                ),
            )
        )
        alias = f"{PROJECT}/models/result/aliases/production"
        await stub.SetAlias(aliases_pb2.SetAliasRequest(name=alias, version=made.name))
        await stub.PinVersion(pb.PinVersionRequest(name=made.name, reason=NEEDED))
        for call, holders in (
            (stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=rows)), made.name),
            (stub.DeleteModelVersion(pb.DeleteModelVersionRequest(name=base.name)), made.name),
            (stub.DeleteModelVersion(pb.DeleteModelVersionRequest(name=made.name)), f"{alias},{made.name}"),
            (
                stub.DeleteModel(pb.DeleteModelRequest(name=RESULT, force=True)),
                f"{alias},{made.name}",
            ),
        ):
            error = await refused(call, Reason.IN_USE)
            assert error.metadata["holders"] == holders
            assert all(name in str(error) for name in holders.split(","))
        held = await stub.GetRetention(pb.GetRetentionRequest(name=made.name))
        assert [(holder.name, holder.kind) for holder in held.holders] == [
            (alias, pb.HOLDER_KIND_ALIAS),
            (made.name, pb.HOLDER_KIND_PIN),
        ]
        await stub.DeleteAlias(aliases_pb2.DeleteAliasRequest(name=alias))
        assert not (await stub.UnpinVersion(pb.UnpinVersionRequest(name=made.name))).holders
        for name in (made.name, base.name):
            assert (await stub.DeleteModelVersion(pb.DeleteModelVersionRequest(name=name))).num_versions == 1
        assert (await stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=rows))).num_versions == 1


@on_loop
async def test_data_that_a_gate_compares_on_is_needed(tmp_path: Path) -> None:
    """A policy that would have nothing to compare on holds the version that it names."""
    async with registry_with(tmp_path / "data") as registry:
        rows = await rows_version(registry, await registry.dataset(), tmp_path)
        await registry.model("base")
        gate = gates_pb2.Gate(
            id="better", comparison=gates_pb2.ComparisonGate(metric="accuracy", dataset=rows, confidence=0.95)
        )
        policy = gates_pb2.GatePolicy(
            name=f"{PROJECT}/models/base/policies/strict", alias_pattern="production", gates=[gate]
        )
        await registry.stub.SetGatePolicy(gates_pb2.SetGatePolicyRequest(policy=policy))
        error = await refused(
            registry.stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=rows)), Reason.IN_USE
        )
        assert error.metadata["holders"] == policy.name
        await registry.stub.DeleteGatePolicy(gates_pb2.DeleteGatePolicyRequest(name=policy.name))
        await registry.stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=rows))


@on_loop
async def test_what_needs_a_version_in_anothers_project_is_not_named(tmp_path: Path) -> None:
    """Who may not use the project learns what kind of thing holds the version, and nothing of its name."""
    names = {"one": ["default"], "both": ["*"]}
    tokens = [
        {
            "token_sha256": hashlib.sha256(who.encode()).hexdigest(),
            "principal": who,
            "roles": ["editor"],
            "projects": of,
        }
        for who, of in names.items()
    ]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    async with registry_with(tmp_path / "data") as registry:
        rows = await rows_version(registry, await registry.dataset(), tmp_path)
        model = await registry.model("secret-plan", project="projects/other")
        gate = gates_pb2.Gate(
            id="better", comparison=gates_pb2.ComparisonGate(metric="accuracy", dataset=rows, confidence=0.95)
        )
        policy = gates_pb2.GatePolicy(name=f"{model}/policies/strict", alias_pattern="production", gates=[gate])
        await registry.stub.SetGatePolicy(gates_pb2.SetGatePolicyRequest(policy=policy))
    async with running_registry(tmp_path / "data", tokens_file=tmp_path / "tokens.json") as registry:
        one, both = ([("authorization", f"Bearer {who}")] for who in names)
        for metadata, name in ((one, ""), (both, policy.name)):
            held = await registry.stub.GetRetention(pb.GetRetentionRequest(name=rows), metadata=metadata)
            assert [(holder.name, holder.kind) for holder in held.holders] == [(name, pb.HOLDER_KIND_GATE_POLICY)]
            delete = registry.stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=rows), metadata=metadata)
            error = await refused(delete, Reason.IN_USE)
            assert (error.metadata["holders"], error.metadata["num_holders"]) == (name, "1")
            assert ("secret-plan" in str(error)) == bool(name)


@on_loop
async def test_a_model_goes_with_its_versions_by_force_only(tmp_path: Path) -> None:
    """Without force its versions keep it; deleted and made again, it counts on where it was."""
    async with registry_with(tmp_path / "data") as registry:
        stub = registry.stub
        model = await registry.model("base")
        first = await registry.imported(model, make_tiny_model(tmp_path / "base"))
        error = await refused(stub.DeleteModel(pb.DeleteModelRequest(name=model)), Reason.IN_USE)
        assert error.metadata["holders"] == first.name
        assert f"has the version {first.name}; to delete it with all it has, give" in str(error)
        assert (await stub.DeleteModel(pb.DeleteModelRequest(name=model, force=True))).num_versions == 1
        for call in (
            stub.GetModel(models_pb2.GetModelRequest(name=model)),
            stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=first.name)),
            stub.DeleteModel(pb.DeleteModelRequest(name=model)),
        ):
            await refused(call, Reason.NOT_FOUND)
        assert not (await stub.ListModels(models_pb2.ListModelsRequest(parent=PROJECT))).models
        assert await registry.model("base") == model
        assert (await registry.imported(model, tmp_path / "base")).name == f"{model}/versions/2"
        dataset = await registry.dataset()
        assert (await stub.DeleteDataset(pb.DeleteDatasetRequest(name=dataset))).num_versions == 0
        await refused(stub.GetDataset(datasets_pb2.GetDatasetRequest(name=dataset)), Reason.NOT_FOUND)


@on_loop
async def test_pins_and_expirations_are_told(tmp_path: Path) -> None:
    """Each reason pins on its own; an expiration may be taken back; what is wrong is told by field."""
    async with registry_with(tmp_path / "data") as registry:
        stub = registry.stub
        name = await rows_version(registry, await registry.dataset(), tmp_path)
        await stub.PinVersion(pb.PinVersionRequest(name=name, reason=NEEDED))
        await stub.PinVersion(pb.PinVersionRequest(name=name, reason=NEEDED))
        kept = await stub.PinVersion(pb.PinVersionRequest(name=name, reason="a demo"))
        assert [(pin.reason, pin.actor) for pin in kept.pins] == [("a demo", "local"), (NEEDED, "local")]
        kept = await stub.UnpinVersion(pb.UnpinVersionRequest(name=name, reason="a demo"))
        assert [pin.reason for pin in kept.pins] == [NEEDED]
        later = Timestamp(seconds=4_000_000_000)
        assert (await stub.SetExpiration(pb.SetExpirationRequest(name=name, expire_time=later))).expire_time == later
        assert not (await stub.SetExpiration(pb.SetExpirationRequest(name=name))).HasField("expire_time")
        wrong = (
            (stub.PinVersion(pb.PinVersionRequest(name=name)), "reason"),
            (stub.PinVersion(pb.PinVersionRequest(name=name, reason="x" * 201)), "reason"),
            (stub.SetExpiration(pb.SetExpirationRequest(name=name, expire_time=Timestamp(seconds=1))), "expire_time"),
            (stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=name, reason="x" * 1025)), "reason"),
        )
        for call, field in wrong:
            assert fields_of(await refused(call, Reason.INVALID_FIELD)) == [field]
        await refused(stub.GetRetention(pb.GetRetentionRequest(name=f"{PROJECT}/jobs/one")), Reason.INVALID_NAME)
        missing = f"{PROJECT}/models/none/versions/1"
        await refused(stub.GetRetention(pb.GetRetentionRequest(name=missing)), Reason.NOT_FOUND)
        await refused(stub.PinVersion(pb.PinVersionRequest(name=missing, reason=NEEDED)), Reason.NOT_FOUND)
        await refused(stub.UnpinVersion(pb.UnpinVersionRequest(name=missing)), Reason.NOT_FOUND)
        await refused(stub.SetExpiration(pb.SetExpirationRequest(name=missing)), Reason.NOT_FOUND)


@on_loop
async def test_a_project_says_how_long_uploads_are_kept(tmp_path: Path) -> None:
    """Its policy counts before the registry's setting, and can be taken back; only admins set it and collect."""
    tokens = [
        {
            "token_sha256": hashlib.sha256(role.encode()).hexdigest(),
            "principal": role,
            "roles": [role],
            "projects": ["*"],
        }
        for role in ("editor", "admin")
    ]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    async with running_registry(tmp_path / "data", tokens_file=tmp_path / "tokens.json") as registry:
        stub, name = registry.stub, f"{PROJECT}/retentionPolicy"
        editor, admin = ([("authorization", f"Bearer {role}")] for role in ("editor", "admin"))
        policy = pb.RetentionPolicy(name=name)
        policy.unfinished_uploads.FromSeconds(3600)
        mask = FieldMask(paths=["unfinished_uploads"])
        update = pb.UpdateRetentionPolicyRequest(policy=policy, update_mask=mask)
        await refused(stub.UpdateRetentionPolicy(update, metadata=editor), Reason.PERMISSION_DENIED)
        await refused(stub.CollectGarbage(pb.CollectGarbageRequest(), metadata=editor), Reason.PERMISSION_DENIED)
        assert await stub.UpdateRetentionPolicy(update, metadata=admin) == policy
        asked = pb.GetRetentionPolicyRequest(name=name)
        assert await stub.GetRetentionPolicy(asked, metadata=editor) == policy
        await stub.UpdateRetentionPolicy(
            pb.UpdateRetentionPolicyRequest(policy=pb.RetentionPolicy(name=name), update_mask=mask), metadata=admin
        )
        assert await stub.GetRetentionPolicy(asked, metadata=admin) == pb.RetentionPolicy(name=name)
        policy.unfinished_uploads.FromSeconds(1)
        short = stub.UpdateRetentionPolicy(
            pb.UpdateRetentionPolicyRequest(policy=policy, update_mask=mask), metadata=admin
        )
        assert fields_of(await refused(short, Reason.INVALID_FIELD)) == ["policy.unfinished_uploads"]
        for paths in ([], ["unfinished_uploads", "name"]):
            other = pb.UpdateRetentionPolicyRequest(policy=policy, update_mask=FieldMask(paths=paths))
            error = await refused(stub.UpdateRetentionPolicy(other, metadata=admin), Reason.INVALID_FIELD)
            assert fields_of(error) == ["update_mask"]
        wrong = pb.GetRetentionPolicyRequest(name=f"{name}/x")
        await refused(stub.GetRetentionPolicy(wrong, metadata=admin), Reason.INVALID_NAME)
        freed = await stub.CollectGarbage(pb.CollectGarbageRequest(), metadata=admin)
        assert (freed.num_contents, freed.freed_bytes) == (0, 0)


@EACH_HOME
@on_loop
async def test_only_what_nothing_needs_is_collected(tmp_path: Path) -> None:
    """A version's blobs stay, those of a deleted one and of no version go; a dry run only tells the same."""
    async with registry_with(tmp_path / "data", grace_s=-1) as registry:
        stub = registry.stub
        dataset = await registry.dataset()
        kept = await rows_version(registry, dataset, tmp_path, 8)
        doomed = await rows_version(registry, dataset, tmp_path, 9)
        left = await registry.put(b"never part of anything")
        both = await registry.put(b"of two projects")
        await registry.put(b"of two projects", project="projects/other")
        assert (await stub.CollectGarbage(pb.CollectGarbageRequest(validate_only=True))).num_contents == 2
        await stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=doomed))
        told = await stub.CollectGarbage(pb.CollectGarbageRequest(validate_only=True))
        assert (told.num_blobs, told.num_contents, told.num_failures) == (4, 3, 0)
        assert len(stored_digests(registry)) == 4
        freed = await stub.CollectGarbage(pb.CollectGarbageRequest())
        told.validate_only = False
        assert freed == told
        files = (await stub.GetDatasetVersion(datasets_pb2.GetDatasetVersionRequest(name=kept))).manifest.files
        assert stored_digests(registry) == [file.sha256 for file in files]
        for digest in (left, both):
            request = blobs_pb2.DownloadBlobRequest(name=f"{PROJECT}/blobs/{digest}")
            await refused(stub.DownloadBlob(request).read(), Reason.NOT_FOUND)
        assert (await stub.CollectGarbage(pb.CollectGarbageRequest())).num_contents == 0
        assert await registry.put(b"never part of anything") == left  # it may come again


@EACH_HOME
@on_loop
async def test_grace_counts_from_when_somebody_relied_on_a_blob(tmp_path: Path) -> None:
    """What was just sent, or just told to be stored, stays; an unfinished upload stays as long as its project says."""
    async with registry_with(tmp_path / "data") as registry:
        await registry.put(b"fresh")
        await registry.upload([next(pieces(b"half of it", chunk_bytes=4))])
        freed = await registry.stub.CollectGarbage(pb.CollectGarbageRequest())
        assert (freed.num_blobs, freed.num_contents, freed.num_uploads) == (0, 0, 0)
        assert len(stored_digests(registry)) == 1


@EACH_HOME
@on_loop
async def test_lost_contents_are_found_and_foreign_things_left_alone(tmp_path: Path) -> None:
    """What lies in the home without a row goes after the grace; what is not named like a content stays."""
    digest = hashlib.sha256(b"lost").hexdigest()
    place = new_place(digest)
    async with registry_with(tmp_path / "data", grace_s=-1) as registry:
        settings = s3_of_test()
        if settings is not None:
            store = S3Store(settings)
            (tmp_path / "lost").write_bytes(b"lost")
            store.keep(tmp_path / "lost", place, digest)
            (tmp_path / "foreign").write_bytes(b"foreign")
            store.keep(tmp_path / "foreign", "notes/by-the-operator", digest)
        else:
            for each in (place, "notes/by-the-operator"):
                path = registry.data / "blobs" / each
                path.parent.mkdir()
                path.write_bytes(b"lost")
        freed = await registry.stub.CollectGarbage(pb.CollectGarbageRequest())
        assert (freed.num_orphans, freed.num_contents, freed.freed_bytes) == (1, 1, 4)
        assert stored_digests(registry) == ["by-the-operator"]


@on_loop
async def test_what_has_expired_goes_unless_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time has come the collector deletes a version, and tells of those that something holds."""
    async with registry_with(tmp_path / "data") as registry:
        stub = registry.stub
        dataset = await registry.dataset()
        names = [await rows_version(registry, dataset, tmp_path, count) for count in (8, 9)]
        for name in names:
            await stub.SetExpiration(pb.SetExpirationRequest(name=name, expire_time=Timestamp(seconds=4_000_000_000)))
        await stub.PinVersion(pb.PinVersionRequest(name=names[1], reason=NEEDED))
        assert (await stub.CollectGarbage(pb.CollectGarbageRequest())).num_expired_versions == 0
        monkeypatch.setattr(collector, "now_us", lambda: 4_000_000_001 * 10**6)
        for validate_only in (True, False):
            freed = await stub.CollectGarbage(pb.CollectGarbageRequest(validate_only=validate_only))
            assert (freed.num_expired_versions, freed.num_held_versions) == (1, 1)
        listed = await stub.ListDatasetVersions(datasets_pb2.ListDatasetVersionsRequest(parent=dataset))
        assert [version.name for version in listed.versions] == [names[1]]


@EACH_HOME
@on_loop
async def test_collections_that_race_with_everything_lose_nothing(tmp_path: Path) -> None:
    """With no grace at all: uploads, versions and deletions of the same contents go on while the collector runs.

    Whatever the order was, each version that is there at the end has every byte.
    """
    chance = random.Random(7)
    contents = [write_rows(tmp_path / f"{count}.jsonl", count).read_bytes() for count in range(3, 7)]
    async with registry_with(tmp_path / "data", grace_s=-1) as registry:
        stub, dataset = registry.stub, await registry.dataset()
        ending = asyncio.Event()

        async def collect() -> int:
            count = 0
            while not ending.is_set():
                count += (await stub.CollectGarbage(pb.CollectGarbageRequest())).num_contents
            return count

        async def make() -> None:
            for _ in range(8):
                content = chance.choice(contents)
                try:
                    manifest = await registry.put_files({"train.jsonl": content})
                    request = datasets_pb2.CreateDatasetVersionRequest(parent=dataset, manifest=manifest)
                    version = await stub.CreateDatasetVersion(request)
                    if chance.random() < 0.5:
                        await stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=version.name))
                except grpc.RpcError:  # told that a blob is missing, that another stream goes on, that it is deleted
                    continue

        collecting = [asyncio.create_task(collect()) for _ in range(2)]
        await asyncio.gather(*(make() for _ in range(4)))
        ending.set()
        assert sum(await asyncio.gather(*collecting)) > 0
        listed = await stub.ListDatasetVersions(datasets_pb2.ListDatasetVersionsRequest(parent=dataset))
        needed = {file.sha256 for version in listed.versions for file in version.manifest.files}
        for digest in needed:
            request = blobs_pb2.DownloadBlobRequest(name=f"{PROJECT}/blobs/{digest}")
            content = b"".join([message.data async for message in stub.DownloadBlob(request)])
            assert hashlib.sha256(content).hexdigest() == digest
        await stub.CollectGarbage(pb.CollectGarbageRequest())
        assert stored_digests(registry) == sorted(needed)


@on_loop
async def test_a_content_that_cannot_be_removed_is_tried_again(tmp_path: Path) -> None:
    """A folder that refuses costs nothing but space; the next collection removes what this one could not."""
    async with registry_with(tmp_path / "data", grace_s=-1) as registry:
        digest = await registry.put(b"stubborn")
        (path,) = (registry.data / "blobs").glob("*/*")
        path.unlink()
        path.mkdir()  # no file that could be unlinked
        freed = await registry.stub.CollectGarbage(pb.CollectGarbageRequest())
        assert (freed.num_blobs, freed.num_contents, freed.num_failures) == (1, 0, 1)
        path.rmdir()
        assert (await registry.stub.CollectGarbage(pb.CollectGarbageRequest())).num_contents == 1
        assert await registry.put(b"stubborn") == digest


@on_loop
async def test_a_bucket_belongs_to_one_registry(tmp_path: Path, bucket: Bucket) -> None:
    """Another registry's contents would look like something left behind, so it is not let in and may not collect."""
    storage = StorageSettings(s3=bucket.settings(), collect_every_s=0, grace_s=-1)
    async with running_registry(tmp_path / "first", storage=storage) as registry:
        digest = await registry.put(b"of the first")
        with pytest.raises(StartRefused, match="belongs to another registry"):
            async with running_registry(tmp_path / "second", storage=storage):
                pass
        bucket.client.put_object(bucket.name, "tests/owner", io.BytesIO(b"somebody"), 8)
        collect = registry.stub.CollectGarbage(pb.CollectGarbageRequest())
        await refused(collect, Reason.STORAGE_MISCONFIGURED)
        assert any(digest in key for key in bucket.keys("tests/blobs"))
    other = StorageSettings(s3=bucket.settings(prefix="another"), collect_every_s=0)
    async with running_registry(tmp_path / "second", storage=other) as registry:
        assert await registry.put(b"of the second")
