"""What revoked data of one project tells another: that it is revoked, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf import field_mask_pb2
from google.protobuf.message import Message

from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.principals import of, tokens_file
from tests.support.registry import PROJECT, RunningRegistry, folder_files, refused, running_registry
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge.errors import Reason
from tuneforge.v1 import aliases_pb2, datasets_pb2, events_pb2, lineage_pb2, models_pb2, types_pb2

pytestmark = EACH_DATABASE

SECRET = "projects/secret"
WORDS = "a customer of ours asked for it"
ROLES = {"ann": ["editor"], "sam": ["editor"], "amy": ["admin"]}
PROJECTS = {"ann": ["default"], "sam": ["secret"]}
MADE = f"{PROJECT}/models/made/versions/1"


def publication(
    model: str, job: str, manifest: types_pb2.Manifest, **inputs: types_pb2.VersionRef
) -> models_pb2.PublishVersionRequest:
    """Returns the request that publishes a whole model with what it was made from."""
    lineage = models_pb2.Lineage(job=job, attempt=1, **inputs)  # type: ignore[arg-type]
    return models_pb2.PublishVersionRequest(
        parent=model, manifest=manifest, kind=events_pb2.ARTIFACT_KIND_MODEL, lineage=lineage
    )


@asynccontextmanager
async def two_projects(folder: Path) -> AsyncIterator[RunningRegistry]:
    """Serves a model of `default` whose base learned from data of `secret`, which is revoked."""
    async with running_registry(folder / "data") as registry:
        stub = registry.stub
        rows = await registry.put_files({"rows.jsonl": write_rows(folder / "rows.jsonl").read_bytes()}, project=SECRET)
        parent = await registry.dataset("letters", project=SECRET)
        data = await stub.CreateDatasetVersion(datasets_pb2.CreateDatasetVersionRequest(parent=parent, manifest=rows))
        data_ref = types_pb2.VersionRef(version=data.name, digest=data.manifest.digest)
        files = folder_files(make_tiny_model(folder / "model"))
        secret = await registry.put_files(files, project=SECRET)
        base = await stub.PublishVersion(
            publication(f"{SECRET}/models/base", f"{SECRET}/jobs/one", secret, dataset=data_ref)
        )
        base_ref = types_pb2.VersionRef(version=base.name, digest=base.manifest.digest)
        own = await registry.put_files(files)
        await stub.PublishVersion(publication(f"{PROJECT}/models/made", f"{PROJECT}/jobs/two", own, base=base_ref))
        await stub.RevokeDataset(lineage_pb2.RevokeDatasetRequest(name=parent, reason=WORDS))
    tokens = tokens_file(folder, ROLES, projects=PROJECTS)
    async with running_registry(folder / "data", tokens_file=tokens) as registry:
        yield registry


async def answers(registry: RunningRegistry, caller: str) -> list[Message]:
    """Returns all that the registry tells a principal about the model of `default`."""
    stub, metadata = registry.stub, of(caller)
    calls: list[Any] = [
        stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=MADE), metadata=metadata),
        stub.ListModelVersions(models_pb2.ListModelVersionsRequest(parent=MADE[:-11]), metadata=metadata),
        stub.UpdateModelVersion(
            models_pb2.UpdateModelVersionRequest(
                version=models_pb2.ModelVersion(name=MADE, domain="support"),
                update_mask=field_mask_pb2.FieldMask(paths=["domain"]),
            ),
            metadata=metadata,
        ),
        stub.QueryLineage(
            lineage_pb2.QueryLineageRequest(name=MADE, direction=lineage_pb2.LINEAGE_DIRECTION_ANCESTORS),
            metadata=metadata,
        ),
    ]
    return [await call for call in calls]


@on_loop
async def test_a_taint_of_another_project_tells_only_that_it_is(tmp_path: Path) -> None:
    """No answer has the data's name, who revoked it, when or why; whoever may touch both projects is told all of it."""
    async with two_projects(tmp_path) as registry:
        for caller, is_told in (("ann", False), ("amy", True), ("ann", False)):
            told = await answers(registry, caller)
            version = told[0]
            assert isinstance(version, models_pb2.ModelVersion)
            (taint,) = version.taints
            assert (taint.name, taint.actor, taint.reason, taint.HasField("time")) == (
                (f"{SECRET}/datasets/letters", "local", WORDS, True) if is_told else ("", "", "", False)
            )
            text = "".join(map(str, told))
            assert ("letters" in text, WORDS in text) == (is_told, is_told)
            assert "LINEAGE_STATE_TAINTED" in str(told[-1])


@on_loop
async def test_a_refusal_names_no_data_of_another_project(tmp_path: Path) -> None:
    """An alias cannot be pointed at the version; the refusal says that data of another project is revoked."""
    async with two_projects(tmp_path) as registry:
        request = aliases_pb2.SetAliasRequest(name=f"{PROJECT}/models/made/aliases/production", version=MADE)
        error = await refused(registry.stub.SetAlias(request, metadata=of("ann")), Reason.REVOKED)
        assert error.message == f"{MADE} was made from data of another project, which is revoked"
        assert dict(error.metadata) == {"name": MADE}
        own = models_pb2.GetModelVersionRequest(name=f"{SECRET}/models/base/versions/1")
        await refused(registry.stub.GetModelVersion(own, metadata=of("ann")), Reason.PERMISSION_DENIED)
        (taint,) = (await registry.stub.GetModelVersion(own, metadata=of("sam"))).taints
        assert (taint.name, taint.reason) == (f"{SECRET}/datasets/letters", WORDS)
