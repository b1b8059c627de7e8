"""Verifications in lists of jobs: which checkpoint they are of, and their verdict."""

import pytest

from tuneforge.cli.jobs import _result
from tuneforge.job_values import job_from_proto
from tuneforge.v1 import jobs_pb2


@pytest.mark.parametrize(("passed", "shown"), [(None, ""), (True, ": passed"), (False, ": FAILED")])
def test_a_verification_is_marked(passed: bool | None, shown: str) -> None:
    """A list tells it from a run, before and after its end."""
    job = jobs_pb2.Job(name="projects/p/jobs/v", state=jobs_pb2.JOB_STATE_SUCCEEDED)
    assert _result(job_from_proto(job)) == "-"
    job.verification.checkpoint = "projects/p/jobs/j/checkpoints/20"
    if passed is not None:
        job.verification.certificate.passed = passed
    assert _result(job_from_proto(job)) == f"verifies j/20{shown}"
