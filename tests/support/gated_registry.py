"""A registry with versions that have figures, a frozen data set, and short ways to set gates and move an alias."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.principals import of
from tests.support.registry import PROJECT, RunningRegistry, running_registry
from tests.support.tiny_model import make_tiny_model
from tuneforge.v1 import aliases_pb2, datasets_pb2, events_pb2, gates_pb2, models_pb2
from tuneforge.v1.validations_pb2 import CheckResult, CreateValidationReportRequest, ValidationReport

if TYPE_CHECKING:
    from tuneforge.v1.registry_pb2_grpc import RegistryServiceAsyncStub

MODEL = f"{PROJECT}/models/tiny"
ALIAS = f"{MODEL}/aliases/production"
POLICY = f"{MODEL}/policies/quality"
ROWS = 60


def version(number: int) -> str:
    """Returns the name of a version."""
    return f"{MODEL}/versions/{number}"


def acting(actor: str) -> list[tuple[str, str]]:
    """Returns the metadata of a call that a service makes for somebody."""
    return [("x-tuneforge-on-behalf-of", actor)]


def row_id(number: int) -> str:
    """Returns the id of a row."""
    return hashlib.sha256(str(number).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class GatedRegistry:
    """A running registry with a model `tiny` and a data set of 60 rows."""

    registry: RunningRegistry
    dataset: str
    """Name of the data set version."""
    caller: Sequence[tuple[str, str]] = ()
    """Metadata of who calls; empty: `local`, and moves on behalf of somebody."""

    def by(self, principal: str, *, on_behalf_of: str = "") -> "GatedRegistry":
        """Returns the same registry as a principal of `principals.tokens_file` calls it."""
        return replace(self, caller=[*of(principal), *(acting(on_behalf_of) if on_behalf_of else ())])

    @property
    def stub(self) -> "RegistryServiceAsyncStub":
        """The registry's methods."""
        return self.registry.stub

    async def publish(self, *figures: Mapping[str, float]) -> None:
        """Adds a version for each set of figures, as jobs would."""
        stub = self.registry.stub
        first = await stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=version(1)))
        for metrics in figures:
            newest = await stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=f"{MODEL}/versions/latest"))
            job = f"{PROJECT}/jobs/job-{newest.name.rpartition('/')[2]}"
            request = models_pb2.PublishVersionRequest(
                parent=MODEL,
                manifest=first.manifest,
                kind=events_pb2.ARTIFACT_KIND_MODEL,
                lineage=models_pb2.Lineage(job=job, attempt=1),
                metrics=metrics,
            )
            await stub.PublishVersion(request)

    async def set_policy(self, *gates: gates_pb2.Gate, **fields: object) -> gates_pb2.GatePolicy:
        """Sets the policy `quality` of the alias `production`."""
        values: dict[str, object] = {"name": POLICY, "alias_pattern": "production", "gates": gates, **fields}
        policy = gates_pb2.GatePolicy(**values)  # type: ignore[arg-type]
        return await self.registry.stub.SetGatePolicy(
            gates_pb2.SetGatePolicyRequest(policy=policy, reason="house"), metadata=self.caller
        )

    async def move(self, number: int, *, actor: str = "ada", **fields: object) -> aliases_pb2.Alias:
        """Points `production` to a version."""
        values: dict[str, object] = {"name": ALIAS, "version": version(number), **fields}
        request = aliases_pb2.SetAliasRequest(**values)  # type: ignore[arg-type]
        return await self.registry.stub.SetAlias(request, metadata=self.caller or acting(actor))

    async def check(self, number: int) -> gates_pb2.GateReport:
        """Asks what the gates would say."""
        return await self.registry.stub.CheckGates(
            gates_pb2.CheckGatesRequest(name=ALIAS, version=version(number)), metadata=self.caller
        )

    async def record(self, number: int, scores: Sequence[float], **fields: object) -> gates_pb2.VersionEvaluation:
        """Keeps scores of a version on the first rows."""
        values: dict[str, object] = {
            "parent": version(number),
            "dataset": self.dataset,
            "metric": "accuracy",
            "row_ids": [row_id(each) for each in range(len(scores))],
            "scores": scores,
            **fields,
        }
        request = gates_pb2.RecordEvaluationRequest(**values)  # type: ignore[arg-type]
        return await self.registry.stub.RecordEvaluation(request, metadata=self.caller)

    async def report(self, number: int, check: str, *, passed: bool, source: str = "") -> ValidationReport:
        """Adds a validation report with one check."""
        report = ValidationReport(source=source, checks=[CheckResult(check_name=check, passed=passed, message="said")])
        request = CreateValidationReportRequest(parent=version(number), report=report)
        return await self.registry.stub.CreateValidationReport(request, metadata=self.caller)


@asynccontextmanager
async def gated_registry(
    folder: Path, *figures: Mapping[str, float], tokens_file: Path | None = None
) -> AsyncIterator[GatedRegistry]:
    """Serves a registry whose model has version 1, imported, and one more for each set of figures.

    Args:
        folder: For its data.
        figures: Of the versions from 2 on.
        tokens_file: Who may call once all is there; None lets everyone.
    """
    async with running_registry(folder / "data") as registry:
        await registry.imported(await registry.model(), make_tiny_model(folder / "model"))
        rows = b"".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}!"}).encode() + b"\n" for n in range(ROWS))
        manifest = await registry.put_files({"test.jsonl": rows})
        request = datasets_pb2.CreateDatasetVersionRequest(parent=await registry.dataset("test"), manifest=manifest)
        dataset = await registry.stub.CreateDatasetVersion(request)
        gated = GatedRegistry(registry, dataset.name)
        await gated.publish(*figures)
        if tokens_file is None:
            yield gated
    if tokens_file is not None:
        async with running_registry(folder / "data", tokens_file=tokens_file) as registry:
            yield GatedRegistry(registry, dataset.name)


def at_least(threshold: float, metric: str = "accuracy") -> gates_pb2.Gate:
    """Returns a gate with a threshold for a figure."""
    rule = gates_pb2.MetricGate(metric=metric, comparator=gates_pb2.COMPARATOR_AT_LEAST, threshold=threshold)
    return gates_pb2.Gate(id=f"{metric}-floor", metric=rule)


def approvals(count: int) -> gates_pb2.Gate:
    """Returns a gate that asks for approvals."""
    return gates_pb2.Gate(id="people", approval=gates_pb2.ApprovalGate(approvals=count))
