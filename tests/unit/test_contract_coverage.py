"""Nothing in the contract is forgotten: callers, tests, policies and error rows are held against the descriptors."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from tuneforge.errors import TABLE, Reason
from tuneforge.v1 import errors_pb2, inference_pb2, registry_pb2, scheduler_pb2, trainer_pb2

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, ServiceDescriptor] = {
    "registry": registry_pb2.DESCRIPTOR.services_by_name["RegistryService"],
    "scheduler": scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"],
    "trainer": trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"],
    "inference": inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
}
METHODS = [(name, method) for name, service in SERVICES.items() for method in service.methods]
IDS = [f"{name}.{method.name}" for name, method in METHODS]
REASONS = [
    value
    for value in errors_pb2.ErrorReason.keys()  # noqa: SIM118 - an enum wrapper is no mapping
    if value != "ERROR_REASON_UNSPECIFIED"
]
# Where a method is called or tested through a thin wrapper, the wrapper calls it by this name.
CALL = r"\.{name}\b"
# Machines, recipes and public keys are the operator's, for all projects; so is what a collection frees.
OF_NO_PROJECT = {
    *("RegisterNode", "Heartbeat", "ListNodes", "GetNode", "ListCalibrations", "DrainNode", "UndrainNode"),
    *("ListRecipes", "GetRecipe", "ResolveRecipe"),
    "ListQueues",  # of one project or of all that the caller may touch; the method checks which
    *("GetSigningKey", "ListSigningKeys", "CollectGarbage", "ListHolds"),
}
# Of one project or of all that the caller may use: they look themselves, which tests of theirs show.
LOOKS_ITSELF = {"WatchJobs", "WatchQueue"}
READS = (
    "Get",
    "List",
    "Watch",
    "Query",
    "Find",
    "Check",
    "Preview",
    "Lint",
    "Download",
    "Verify",
    "Resolve",
    "Generate",
    "Estimate",
    "Explain",
    "Simulate",
)
# A job, an attempt, a digest, a node's generation tell a repetition from a new call.
SAFE_TO_REPEAT = {
    *("PublishVersion", "UploadBlob", "CompleteUpload", "CollectGarbage"),
    *("HoldVersions", "ReleaseVersions", "HoldBlobs", "ReleaseBlobs"),
    *("RegisterNode", "Heartbeat", "StartAttempt", "AckEvents", "StopAttempt"),
}


def sources(*patterns: str) -> str:
    """Returns the text of all files that match, joined."""
    files = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    return "\n".join(path.read_text() for path in files if "/v1/" not in str(path))


@pytest.mark.parametrize(("service", "method"), METHODS, ids=IDS)
def test_method_has_a_caller(service: str, method: MethodDescriptor) -> None:
    """Each RPC is called by the SDK or by another service."""
    callers = sources("tuneforge/*.py", "services/*/peers.py", "services/grpckit/version_holds.py")
    assert re.search(CALL.format(name=method.name), callers), f"nobody calls {service}.{method.name}"


@pytest.mark.parametrize(("service", "method"), METHODS, ids=IDS)
def test_method_has_a_contract_test(service: str, method: MethodDescriptor) -> None:
    """Each RPC is called by a test over a real socket."""
    tests = sources(f"tests/contract/test_{service}*.py", f"tests/contract/{service}*/*.py")
    assert re.search(CALL.format(name=method.name), tests), f"no contract test calls {service}.{method.name}"


@pytest.mark.parametrize(("service", "method"), METHODS, ids=IDS)
def test_method_has_a_policy(service: str, method: MethodDescriptor) -> None:
    """Each RPC has one policy row, and no row is left over."""
    policies = importlib.import_module(f"services.{service}.policy").POLICIES
    assert method.name in policies
    assert set(policies) == {each.name for each in SERVICES[service].methods}


@pytest.mark.parametrize(("service", "method"), METHODS, ids=IDS)
def test_method_is_of_one_project(service: str, method: MethodDescriptor) -> None:
    """Each RPC whose request names a thing of a project has its project checked by the field that its policy names."""
    policy = importlib.import_module(f"services.{service}.policy").POLICIES[method.name]
    if policy.project_from is None:
        assert method.name in OF_NO_PROJECT | LOOKS_ITSELF or method.client_streaming, (
            f"{method.name} checks no project"
        )
        return
    message: Descriptor | None = method.input_type
    *path, last = policy.project_from.split(".")
    for word in path:
        message = message.fields_by_name[word].message_type if message else None
    assert message
    assert message.fields_by_name[last].type == FieldDescriptor.TYPE_STRING


@pytest.mark.parametrize(("service", "method"), METHODS, ids=IDS)
def test_changing_method_may_be_repeated(service: str, method: MethodDescriptor) -> None:
    """Each RPC that changes something takes a request id, unless its own fields make a repetition safe."""
    reads = method.name.startswith(READS) or method.name in SAFE_TO_REPEAT
    assert reads or "request_id" in method.input_type.fields_by_name, f"{service}.{method.name} takes no request_id"


@pytest.mark.parametrize(("service", "method"), METHODS, ids=IDS)
def test_method_comment_lists_its_errors(service: str, method: MethodDescriptor) -> None:
    """Each RPC's comment has an `Errors:` block, and every reason in it is in the table."""
    text = (ROOT / f"protos/tuneforge/v1/{service}.proto").read_text()
    comment = re.search(rf"((?:  //.*\n)+)  rpc {method.name}\(", text)
    assert comment, method.name
    _, found, errors = comment.group(1).partition("Errors:")
    assert found, method.name
    for code, reason in re.findall(r"([A-Z_]+) `([A-Z_]+)`", errors):
        assert TABLE[Reason(reason)].code == code, f"{method.name}: {reason} is {TABLE[Reason(reason)].code}"


@pytest.mark.parametrize("reason", REASONS)
def test_reason_has_a_row(reason: str) -> None:
    """Each reason of the contract has a row with a cure, and the table has no other."""
    short = reason.removeprefix("ERROR_REASON_")
    assert TABLE[Reason(short)].cure
    assert {f"ERROR_REASON_{each}" for each in Reason} == set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_reason_has_a_test(reason: str) -> None:
    """Each reason is provoked by a test: it is named in one, outside this file and outside the table's own."""
    short = reason.removeprefix("ERROR_REASON_")
    tests = "\n".join(
        path.read_text()
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in {"test_contract_coverage.py", "test_errors.py"}
    )
    assert re.search(rf"\b(ERROR_REASON_)?{short}\b", tests), f"no test provokes {short}"
