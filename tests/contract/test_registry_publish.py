"""PublishVersion: once by job, for ever, with the whole lineage."""

import asyncio
import hashlib
import json
from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, folder_files, refused, running_registry
from tests.support.seaweedfs import EACH_HOME
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model, write_rows
from tuneforge.errors import Reason
from tuneforge.v1 import datasets_pb2, events_pb2, spec_pb2, types_pb2
from tuneforge.v1 import models_pb2 as pb

pytestmark = EACH_DATABASE

JOB = f"{PROJECT}/jobs/job-1"
RESULT = f"{PROJECT}/models/greeter"


def ref(version: pb.ModelVersion | datasets_pb2.DatasetVersion) -> types_pb2.VersionRef:
    """Returns the reference to a version."""
    return types_pb2.VersionRef(version=version.name, digest=version.manifest.digest)


async def publication(registry: RunningRegistry, folder: Path) -> pb.PublishVersionRequest:
    """Stores a base, rows and an adapter, and returns the request that publishes the adapter."""
    base = await registry.imported(await registry.model("base"), make_tiny_model(folder / "base"))
    rows = await registry.put_files({"train.jsonl": write_rows(folder / "rows.jsonl").read_bytes()})
    dataset = await registry.stub.CreateDatasetVersion(
        datasets_pb2.CreateDatasetVersionRequest(parent=await registry.dataset(), manifest=rows)
    )
    spec = spec_pb2.TrainingSpec(base=spec_pb2.BaseModel(model=base.name), lora=spec_pb2.LoraMethod(rank=4), seed=7)
    lineage = pb.Lineage(
        base=ref(base), dataset=ref(dataset), job=JOB, attempt=2, spec=spec, environment={"torch": "2.13"}
    )
    return pb.PublishVersionRequest(
        parent=RESULT,
        manifest=await registry.put_files(folder_files(make_tiny_adapter(folder / "adapter"))),
        kind=events_pb2.ARTIFACT_KIND_ADAPTER,
        lineage=lineage,
        metrics={"loss": 0.25},
    )


@EACH_HOME
@on_loop
async def test_an_adapter_is_published_with_its_lineage(tmp_path: Path) -> None:
    """The model is made, the version keeps lineage and metrics, and its architecture is that of its base."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        made = await registry.stub.PublishVersion(request)
        assert made.name == f"{RESULT}/versions/1"
        assert made.kind == events_pb2.ARTIFACT_KIND_ADAPTER
        assert made.lineage == request.lineage
        assert dict(made.metrics) == {"loss": 0.25}
        base = await registry.stub.GetModelVersion(pb.GetModelVersionRequest(name=request.lineage.base.version))
        assert made.architecture == base.architecture
        assert len(made.architecture.tensors) > 10
        assert await registry.stub.GetModelVersion(pb.GetModelVersionRequest(name=made.name)) == made
        model = await registry.stub.GetModel(pb.GetModelRequest(name=RESULT))
        assert (model.latest_version, model.creator) == (made.name, "local")


@on_loop
async def test_a_job_publishes_once_for_ever(tmp_path: Path) -> None:
    """The same manifest gives the same version, at once, later, and after a restart; another one is refused."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        made = await asyncio.gather(*(registry.stub.PublishVersion(request) for _ in range(4)))
        assert {version.name for version in made} == {f"{RESULT}/versions/1"}
    async with running_registry(tmp_path / "data") as registry:
        assert await registry.stub.PublishVersion(request) == made[0]
        other = pb.PublishVersionRequest.FromString(request.SerializeToString())
        files = folder_files(make_tiny_adapter(tmp_path / "other", seed=1))
        other.manifest.CopyFrom(await registry.put_files(files))
        error = await refused(registry.stub.PublishVersion(other), Reason.ALREADY_PUBLISHED)
        assert error.metadata["version"] == made[0].name
        elsewhere = pb.PublishVersionRequest.FromString(request.SerializeToString())
        elsewhere.parent = f"{PROJECT}/models/elsewhere"
        await refused(registry.stub.PublishVersion(elsewhere), Reason.ALREADY_PUBLISHED)
        listed = await registry.stub.ListModelVersions(pb.ListModelVersionsRequest(parent=RESULT))
        assert len(listed.versions) == 1


@on_loop
async def test_two_jobs_with_the_same_bytes_have_two_versions(tmp_path: Path) -> None:
    """Equal runs may give equal bytes; each job has its version with its own lineage."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        first = await registry.stub.PublishVersion(request)
        request.lineage.job = f"{PROJECT}/jobs/job-2"
        second = await registry.stub.PublishVersion(request)
        assert (first.name, second.name) == (f"{RESULT}/versions/1", f"{RESULT}/versions/2")
        assert second.lineage.job == request.lineage.job


@on_loop
async def test_a_whole_model_is_published_with_its_own_architecture(tmp_path: Path) -> None:
    """A full fine-tune reads its architecture from its own files."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        request.manifest.CopyFrom(await registry.put_files(folder_files(make_tiny_model(tmp_path / "full", seed=3))))
        request.kind = events_pb2.ARTIFACT_KIND_MODEL
        made = await registry.stub.PublishVersion(request)
        assert made.architecture.class_name == "LlamaForCausalLM"
        assert made.lineage.base == request.lineage.base


@on_loop
async def test_an_adapter_on_an_adapter_has_the_architecture_below_both(tmp_path: Path) -> None:
    """The second layer's base is the first layer; the architecture is handed on."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        first = await registry.stub.PublishVersion(request)
        request.lineage.job = f"{PROJECT}/jobs/job-2"
        request.lineage.base.CopyFrom(ref(first))
        second = await registry.stub.PublishVersion(request)
        assert second.architecture == first.architecture


@on_loop
async def test_missing_and_wrong_fields_are_told_at_once(tmp_path: Path) -> None:
    """Kind, job and base are required; jobs of other projects and malformed names are refused with them."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        request.kind = events_pb2.ARTIFACT_KIND_UNSPECIFIED
        request.lineage.job = ""
        request.lineage.dataset.version = "rows"
        error = await refused(registry.stub.PublishVersion(request), Reason.INVALID_FIELD)
        assert fields_of(error) == ["kind", "lineage.job", "lineage.dataset.version"]
        request.kind = events_pb2.ARTIFACT_KIND_ADAPTER
        request.lineage.job = "projects/other/jobs/job-1"
        request.lineage.ClearField("base")
        error = await refused(registry.stub.PublishVersion(request), Reason.INVALID_FIELD)
        assert fields_of(error) == ["lineage.job", "lineage.base", "lineage.dataset.version"]


@on_loop
async def test_a_lineage_must_name_what_is_stored(tmp_path: Path) -> None:
    """A base with another digest and rows that are not there are told by field."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        request.lineage.base.digest = "0" * 64
        request.lineage.validation.version = f"{PROJECT}/datasets/none/versions/1"
        error = await refused(registry.stub.PublishVersion(request), Reason.INVALID_FIELD)
        assert fields_of(error) == ["lineage.base.digest", "lineage.validation.version"]


@EACH_HOME
@on_loop
async def test_what_a_job_publishes_is_checked_like_an_import(tmp_path: Path) -> None:
    """Unsafe files, adapters that are none, missing blobs and wrong digests are refused, and no model is made."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        good = types_pb2.Manifest.FromString(request.manifest.SerializeToString())
        files = folder_files(make_tiny_adapter(tmp_path / "bad")) | {"training_args.bin": b"x"}
        files["adapter_config.json"] = json.dumps({"peft_type": "IA3"}).encode()
        request.manifest.CopyFrom(await registry.put_files(files))
        error = await refused(registry.stub.PublishVersion(request), Reason.INVALID_MODEL)
        assert sorted(fields_of(error)) == ["adapter_config.json", "training_args.bin"]
        request.manifest.CopyFrom(good)
        request.manifest.files[0].sha256 = "0" * 64
        await refused(registry.stub.PublishVersion(request), Reason.BLOB_MISSING)
        request.manifest.CopyFrom(good)
        request.manifest.digest = "0" * 64
        await refused(registry.stub.PublishVersion(request), Reason.DIGEST_MISMATCH)
        await refused(registry.stub.GetModel(pb.GetModelRequest(name=RESULT)), Reason.NOT_FOUND)


@on_loop
async def test_only_services_publish(tmp_path: Path) -> None:
    """An editor may import versions, but not claim that a job made one."""
    tokens = [
        {"token_sha256": hashlib.sha256(b"e").hexdigest(), "principal": "eve", "roles": ["editor"], "projects": ["*"]}
    ]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    async with running_registry(tmp_path / "data", tokens_file=tmp_path / "tokens.json") as registry:
        metadata = [("authorization", "Bearer e")]
        request = pb.PublishVersionRequest(parent=RESULT)
        await refused(registry.stub.PublishVersion(request, metadata=metadata), Reason.PERMISSION_DENIED)
        made = await registry.stub.CreateModel(
            pb.CreateModelRequest(parent=PROJECT, model_id="greeter"), metadata=metadata
        )
        assert made.creator == "eve"


@on_loop
async def test_a_lineage_gives_no_look_into_other_projects(tmp_path: Path) -> None:
    """A service that serves one project cannot ask about the versions of another by publishing on top of them."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
    entry = {"token_sha256": hashlib.sha256(b"s").hexdigest(), "principal": "scheduler", "roles": ["service"]}
    (tmp_path / "tokens.json").write_text(json.dumps([entry | {"projects": ["default"]}]))
    async with running_registry(tmp_path / "data", tokens_file=tmp_path / "tokens.json") as registry:
        metadata = [("authorization", "Bearer s")]
        foreign = pb.PublishVersionRequest.FromString(request.SerializeToString())
        foreign.lineage.base.version = "projects/other/models/base/versions/1"
        await refused(registry.stub.PublishVersion(foreign, metadata=metadata), Reason.PERMISSION_DENIED)
        made = await registry.stub.PublishVersion(request, metadata=metadata)
        assert made.creator == "scheduler"
