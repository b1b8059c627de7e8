"""Verifications of resumes: what was done again, and the certificate that says whether every bit was the same."""

from collections.abc import Mapping
from dataclasses import dataclass

from tuneforge import _wire
from tuneforge.v1 import jobs_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedStep:
    """One step that was done twice; the numbers are exact."""

    step: int
    expected_loss: float
    """In the run's event log; not a number where the step is not in it."""
    found_loss: float
    """Of the repetition; not a number where it was not made."""
    expected_grad_norm: float
    found_grad_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeCertificate:
    """What a verification found."""

    passed: bool
    """Whether every number was the same, bit for bit."""
    first_divergent_step: int
    """First step with another number; 0: none."""
    steps: tuple[ReplayedStep, ...]
    expected_weights_digest: str
    """SHA-256 of the weights that the run saved after the last of these steps; empty: it saved none there."""
    found_weights_digest: str
    """The same of the repetition."""
    environment: Mapping[str, str]
    """Versions and devices that the repetition ran with."""
    record_head: str
    """Head of the verified job's record when the two were compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeVerification:
    """Steps of a run that are done again from a checkpoint."""

    checkpoint: str
    """`projects/{project}/jobs/{job}/checkpoints/{step}`."""
    num_steps: int
    certificate: ResumeCertificate | None
    """None until it is done."""


def verification_from_proto(message: pb.ResumeVerification) -> ResumeVerification:
    """Converts a verification."""
    return ResumeVerification(
        checkpoint=message.checkpoint,
        num_steps=message.num_steps,
        certificate=_certificate(message.certificate) if message.HasField("certificate") else None,
    )


def _certificate(message: pb.ResumeCertificate) -> ResumeCertificate:
    return ResumeCertificate(
        passed=message.passed,
        first_divergent_step=message.first_divergent_step,
        steps=tuple(map(_step, message.steps)),
        expected_weights_digest=message.expected_weights_digest,
        found_weights_digest=message.found_weights_digest,
        environment=_wire.frozen(message.environment),
        record_head=message.record_head,
    )


def _step(message: pb.ReplayedStep) -> ReplayedStep:
    return ReplayedStep(
        step=message.step,
        expected_loss=message.expected_loss,
        found_loss=message.found_loss,
        expected_grad_norm=message.expected_grad_norm,
        found_grad_norm=message.found_grad_norm,
    )
