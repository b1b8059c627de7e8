"""What an editor may not do for everybody: take a revocation back, or speak for the trainer."""

from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.principals import of, tokens_file
from tests.support.registry import PROJECT, refused, running_registry
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge.errors import Reason
from tuneforge.v1 import datasets_pb2, lineage_pb2, validations_pb2

pytestmark = EACH_DATABASE

ROLES = {"ed": ["editor"], "ada": ["editor", "admin"], "scheduler": ["editor", "service"]}


@on_loop
async def test_who_may_take_back_a_revocation_and_speak_for_the_trainer(tmp_path: Path) -> None:
    """An editor revokes, an admin takes it back; a report of the trainer comes from a service alone."""
    async with running_registry(tmp_path / "data") as registry:
        base = await registry.imported(await registry.model("base"), make_tiny_model(tmp_path / "base"))
        rows = await registry.put_files({"rows.jsonl": write_rows(tmp_path / "rows.jsonl").read_bytes()})
        version = datasets_pb2.CreateDatasetVersionRequest(parent=await registry.dataset(), manifest=rows)
        data = (await registry.stub.CreateDatasetVersion(version)).name
    async with running_registry(tmp_path / "data", tokens_file=tokens_file(tmp_path, ROLES)) as registry:
        stub = registry.stub
        await stub.RevokeDataset(lineage_pb2.RevokeDatasetRequest(name=data, reason="asked"), metadata=of("ed"))
        back = lineage_pb2.UnrevokeDatasetRequest(name=data, reason="a mistake")
        await refused(stub.UnrevokeDataset(back, metadata=of("ed")), Reason.PERMISSION_DENIED)
        await stub.UnrevokeDataset(back, metadata=of("ada"))
        report = validations_pb2.ValidationReport(source="trainer")
        report.checks.add(check_name="safety", passed=True, message="fine")
        request = validations_pb2.CreateValidationReportRequest(parent=base.name, report=report)
        error = await refused(stub.CreateValidationReport(request, metadata=of("ed")), Reason.INVALID_FIELD)
        assert [violation.field for violation in error.fields] == ["report.source"]
        await stub.CreateValidationReport(request, metadata=of("scheduler"))
        request.report.source = "red-team"
        made = await stub.CreateValidationReport(request, metadata=of("ed"))
        assert made.source == "red-team"


@on_loop
async def test_the_log_of_revocations_is_asked_by_name(tmp_path: Path) -> None:
    """A malformed name is told, not answered with an empty log."""
    async with running_registry(tmp_path / "data") as registry:
        for parent in ("nonsense", f"{PROJECT}/datasets/", f"{PROJECT}/datasets/rows/versions/x"):
            request = lineage_pb2.ListRevocationsRequest(parent=parent)
            await refused(registry.stub.ListRevocations(request), Reason.INVALID_NAME)
        await registry.stub.ListRevocations(lineage_pb2.ListRevocationsRequest(parent=PROJECT))
