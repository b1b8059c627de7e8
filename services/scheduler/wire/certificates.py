"""Verifications of resumes: what is stored, what is compared, and the report on a version that tells of it."""

from __future__ import annotations

import struct

from services.scheduler.records import Job
from services.scheduler.store.runs import Curve
from tuneforge.names import CheckpointName
from tuneforge.v1 import events_pb2, jobs_pb2, validations_pb2

CHECK_NAME = "resume"
SOURCE = "verify-resume"
_MISSING = float("nan")


def verification_bytes(checkpoint: str, num_steps: int) -> bytes:
    """Returns what is to be verified, as it is stored."""
    return jobs_pb2.ResumeVerification(checkpoint=checkpoint, num_steps=num_steps).SerializeToString()


def read_verification(job: Job) -> jobs_pb2.ResumeVerification:
    """Returns what a job verifies; it must be a verification."""
    return jobs_pb2.ResumeVerification.FromString(job.verifies or b"")


def certificate_of(
    verification: jobs_pb2.ResumeVerification, expected: Curve, found: Curve, job: Job, verified: Job
) -> jobs_pb2.ResumeCertificate:
    """Compares a repetition with the run, bit for bit.

    Args:
        verification: What was done again.
        expected: The run.
        found: The repetition.
        job: The verification.
        verified: The job of the run.
    """
    first = CheckpointName.parse(verification.checkpoint).step + 1
    last = first + verification.num_steps - 1
    certificate = jobs_pb2.ResumeCertificate(
        expected_weights_digest=expected.weights.get(last, ""),
        found_weights_digest=found.replayed_weights,
        environment=environment_of(job.resolved),
        record_head=verified.record_head.hex(),
    )
    for step in range(first, last + 1):
        one, other = expected.steps.get(step), found.steps.get(step)
        if certificate.first_divergent_step == 0 and (one is None or other is None or _bits(*one) != _bits(*other)):
            certificate.first_divergent_step = step
        certificate.steps.add(
            step=step,
            expected_loss=one[0] if one else _MISSING,
            found_loss=other[0] if other else _MISSING,
            expected_grad_norm=one[1] if one else _MISSING,
            found_grad_norm=other[1] if other else _MISSING,
        )
    wanted = certificate.expected_weights_digest
    is_same_weights = wanted in ("", certificate.found_weights_digest)
    certificate.passed = certificate.first_divergent_step == 0 and is_same_weights
    return certificate


def report_of(
    name: str, verification: jobs_pb2.ResumeVerification, certificate: jobs_pb2.ResumeCertificate
) -> validations_pb2.ValidationReport:
    """Returns a certificate as a report on the version, with the bits of every number.

    Args:
        name: The verification's job.
        verification: What was done again.
        certificate: What was found.
    """
    details = {
        "job": name,
        "checkpoint": verification.checkpoint,
        "record_head": certificate.record_head,
        "weights": f"expected {certificate.expected_weights_digest or 'none'}, "
        f"found {certificate.found_weights_digest}",
    }
    for step in certificate.steps:
        expected = _bits(step.expected_loss, step.expected_grad_norm)
        found = _bits(step.found_loss, step.found_grad_norm)
        details[f"step_{step.step}"] = f"expected {expected}, found {found}"
    count, first = len(certificate.steps), certificate.first_divergent_step
    message = f"{count} steps after {verification.checkpoint} were done again: "
    if certificate.passed and certificate.expected_weights_digest:
        message += "every loss, gradient norm and weight is the same, bit for bit."
    elif certificate.passed:
        message += "every loss and gradient norm is the same, bit for bit. The run saved no weights there to compare."
    else:
        message += f"step {first} differs." if first else "the weights after them differ."
    check = validations_pb2.CheckResult(
        check_name=CHECK_NAME, passed=certificate.passed, message=message, details=details
    )
    return validations_pb2.ValidationReport(checks=[check], source=SOURCE)


def _bits(loss: float, grad_norm: float) -> str:
    """Returns two numbers as the bits of their doubles."""
    return f"{struct.pack('>d', loss).hex()} {struct.pack('>d', grad_norm).hex()}"


def environment_of(resolved: bytes | None) -> dict[str, str]:
    """Returns versions and devices that a run began with; empty: it has not said."""
    return dict(events_pb2.Resolved.FromString(resolved or b"").environment)
