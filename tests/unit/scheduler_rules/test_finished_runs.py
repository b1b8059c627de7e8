"""What is kept of runs that have ended: the numbers that a proof compares, and what corrects the next predictions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import create_engine, insert

from services.scheduler.jobs import JobState
from services.scheduler.records import Job, Needs, Ref
from services.scheduler.store.runs import read_curve
from services.scheduler.store.tables import chunks
from services.scheduler.wire.certificates import report_of
from services.scheduler.wire.estimates import measured_run
from tuneforge.names import JobName
from tuneforge.v1 import events_pb2, jobs_pb2, spec_pb2

REF = Ref(version="projects/p/datasets/d/versions/1", digest="a" * 64)
SUCCEEDED = events_pb2.ATTEMPT_RESULT_SUCCEEDED


def job(spec: spec_pb2.TrainingSpec) -> Job:
    """Returns a job that has ended well on a CPU."""
    return Job(
        number=1,
        uid=1,
        name=JobName("p", "j"),
        state=JobState.SUCCEEDED,
        from_state="PUBLISHING",
        reason="",
        message="",
        creator="local",
        labels={},
        spec=spec.SerializeToString(),
        inputs=None,
        estimate=None,
        base=None,
        train=REF,
        validation=None,
        architecture_version=None,
        output_model="",
        depends_on=None,
        needs=Needs(),
        attempt=1,
        token=1,
        faults=0,
        not_before_ms=0,
        failure=None,
        resolved=events_pb2.Resolved(environment={"device": "cpu"}).SerializeToString(),
        published=None,
        step=10,
        total_steps=10,
        create_ms=0,
        start_ms=0,
        end_ms=1,
        latest_seq=1,
        record_head=b"",
        resource_estimate=jobs_pb2.ResourceEstimate(
            family="LlamaForCausalLM", arithmetic_bytes=1000, flops_per_token=2.0
        ).SerializeToString(),
    )


@pytest.mark.parametrize("last_rank", [0, 1])
def test_the_weights_of_a_gang_are_those_of_its_first_part(last_rank: int) -> None:
    """Whichever part's end is kept last, the digest is that of the part which has the weights."""
    events = [
        events_pb2.Event(
            node_rank=rank,
            outcome=events_pb2.AttemptOutcome(result=SUCCEEDED, replayed_weights_digest=str(rank) * 64),
        )
        for rank in (1 - last_rank, last_rank)
    ]
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        chunks.create(connection)
        payload = events_pb2.EventBatch(events=events).SerializeToString()
        connection.execute(insert(chunks).values(job=1, first_seq=1, last_seq=2, payload=payload))
        assert read_curve(connection, 1).replayed_weights == "0" * 64
    engine.dispose()


@pytest.mark.parametrize(("saved", "is_claimed"), [("b" * 64, True), ("", False)])
def test_a_certificate_claims_equal_weights_only_where_some_were_saved(saved: str, is_claimed: bool) -> None:
    """Steps that do not end at a checkpoint have no weights to compare, and the report says so."""
    certificate = jobs_pb2.ResumeCertificate(passed=True, expected_weights_digest=saved, found_weights_digest="b" * 64)
    verification = jobs_pb2.ResumeVerification(checkpoint="projects/p/jobs/j/checkpoints/2", num_steps=1)
    (check,) = report_of("projects/p/jobs/v", verification, certificate).checks
    assert ("weight is the same" in check.message) is is_claimed
    assert ("saved no weights" in check.message) is not is_claimed


@pytest.mark.parametrize("nodes", [0, 1, 4])
def test_the_rate_of_a_run_on_several_nodes_is_that_of_one(nodes: int) -> None:
    """Each of four computed a quarter of the tokens; the tokens of a row are those of the data all the same."""
    spec = spec_pb2.TrainingSpec(
        lora=spec_pb2.LoraMethod(),
        optimization=spec_pb2.Optimization(rows_per_step=8),
        resources=spec_pb2.Resources(nodes=nodes),
    )
    figures = {"train_seconds": 2.0, "tokens": 8000.0, "peak_memory_bytes": 500.0}
    outcome = events_pb2.AttemptOutcome(result=SUCCEEDED, step=10, metrics=figures)
    found = measured_run(job(spec), outcome.SerializeToString())
    assert found is not None
    row_tokens, run = found
    assert row_tokens == 100.0
    assert run.rate == 2.0 * 8000.0 / max(1, nodes) / 2.0


def test_a_run_corrects_the_device_that_it_ran_on_by_what_it_computed() -> None:
    """Of several predictions that of its device counts, and of tokens those that took the time."""
    done = job(spec_pb2.TrainingSpec(lora=spec_pb2.LoraMethod(), optimization=spec_pb2.Optimization(rows_per_step=8)))
    mixed = jobs_pb2.ResourceEstimate(device="NVIDIA H200", family="LlamaForCausalLM", arithmetic_bytes=9000)
    mixed.alternatives.add(device="cpu", family="LlamaForCausalLM", arithmetic_bytes=1000, flops_per_token=2.0)
    figures = {"train_seconds": 2.0, "tokens": 8000.0, "computed_tokens": 4000.0, "peak_memory_bytes": 500.0}
    outcome = events_pb2.AttemptOutcome(result=SUCCEEDED, step=10, metrics=figures)
    found = measured_run(replace(done, resource_estimate=mixed.SerializeToString()), outcome.SerializeToString())
    assert found is not None
    row_tokens, run = found
    assert (row_tokens, run.memory_ratio, run.rate) == (50.0, 0.5, 4000.0)
