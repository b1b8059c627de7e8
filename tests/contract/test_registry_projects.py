"""No method of the registry lets a principal into a project that is not its own, by whichever field names it."""

import hashlib
import json
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from services.registry.policy import POLICIES
from tests.support.event_loop import on_loop
from tests.support.registry import PROJECT, refused, running_registry
from tuneforge.errors import Reason
from tuneforge.v1 import gates_pb2, lineage_pb2, lint_pb2, models_pb2, registry_pb2, sources_pb2, types_pb2

SERVICE = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"]
DATA, MODEL = f"{PROJECT}/datasets/rows/versions/1", f"{PROJECT}/models/m"
OTHER_DATA, OTHER_MODEL = "projects/secret/datasets/rows/versions/1", "projects/secret/models/m/versions/1"
METADATA = (("authorization", f"Bearer {'x' * 40}"),)


def own_project_only(folder: Path) -> Path:
    """Writes the tokens of one principal that may do everything in one project."""
    path = folder / "tokens.json"
    roles = ["viewer", "editor", "admin", "service"]
    digest = hashlib.sha256(("x" * 40).encode()).hexdigest()
    path.write_text(json.dumps([{"token_sha256": digest, "principal": "ann", "roles": roles, "projects": ["default"]}]))
    return path


async def answer_of(call: Any) -> None:
    """Waits for a call, or for all that a stream sends."""
    if isinstance(call, AsyncIterable):
        async for _ in call:
            pass
    else:
        await call


def foreign_names() -> Iterator[tuple[str, Any]]:
    """Yields for each method with a project the request that names another's."""
    for method in SERVICE.methods:
        field = POLICIES[method.name].project_from
        if field is not None:
            request = GetMessageClass(method.input_type)()
            *path, last = field.split(".")
            inner = request
            for word in path:
                inner = getattr(inner, word)
            setattr(inner, last, OTHER_MODEL)
            yield method.name, request


def foreign_mentions() -> Iterator[tuple[str, Any]]:
    """Yields requests about things of one's own that mention another's in a field that no policy checks."""
    file = types_pb2.ManifestFile(path="config.json", sha256="a" * 64, size_bytes=2)
    base = types_pb2.VersionRef(version=OTHER_MODEL)
    policy = gates_pb2.GatePolicy(name=f"{MODEL}/policies/p", alias_pattern="production")
    metric = policy.gates.add(id="metric").metric
    metric.CopyFrom(gates_pb2.MetricGate(metric="loss", comparator=gates_pb2.COMPARATOR_AT_MOST, dataset=OTHER_DATA))
    better = gates_pb2.GatePolicy(name=policy.name, alias_pattern="production")
    better.gates.add(id="better").comparison.CopyFrom(
        gates_pb2.ComparisonGate(metric="accuracy", dataset=OTHER_DATA, confidence=0.95)
    )
    yield (
        "CreateModelVersion",
        models_pb2.CreateModelVersionRequest(parent=MODEL, manifest=types_pb2.Manifest(files=[file]), base=base),
    )
    location = sources_pb2.Location(uri="hf://owner/name")
    yield "ImportModelVersion", sources_pb2.ImportModelVersionRequest(parent=MODEL, location=location, base=base)
    yield "LintDatasetVersion", lint_pb2.LintDatasetVersionRequest(name=DATA, validation=OTHER_DATA)
    yield "LintDatasetVersion", lint_pb2.LintDatasetVersionRequest(name=DATA, model=OTHER_MODEL)
    yield "PreviewDatasetRow", lint_pb2.PreviewDatasetRowRequest(name=DATA, model=OTHER_MODEL, number=1)
    yield "SetGatePolicy", gates_pb2.SetGatePolicyRequest(policy=policy)
    yield "SetGatePolicy", gates_pb2.SetGatePolicyRequest(policy=better)
    yield (
        "RecordEvaluation",
        gates_pb2.RecordEvaluationRequest(
            parent=f"{MODEL}/versions/1", dataset=OTHER_DATA, metric="accuracy", row_ids=["a" * 64], scores=[1]
        ),
    )
    yield "FindLineagePath", lineage_pb2.FindLineagePathRequest(name=DATA, other=OTHER_MODEL)


@pytest.mark.parametrize("requests", [foreign_names, foreign_mentions])
@on_loop
async def test_another_project_is_refused(tmp_path: Path, requests: Callable[[], Iterator[tuple[str, Any]]]) -> None:
    """Whether the field says what the call is about or only mentions something."""
    async with running_registry(tmp_path / "data", tokens_file=own_project_only(tmp_path)) as registry:
        for method, request in requests():
            call = getattr(registry.stub, method)(request, metadata=METADATA)
            error = await refused(answer_of(call), Reason.PERMISSION_DENIED)
            assert error.metadata["project"] == "secret", method
