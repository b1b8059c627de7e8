"""Which events of an old log stay."""

from __future__ import annotations

from services.scheduler.compaction.rules import CompactionPolicy, stays
from tuneforge.v1 import events_pb2

POLICY = CompactionPolicy(after_s=1.0, keep_every=10)


def step(number: int) -> events_pb2.Event:
    """Returns the event of a step."""
    return events_pb2.Event(step=events_pb2.StepMetrics(step=number, total_steps=95))


def test_steps_that_stay() -> None:
    """The first, the last, every tenth, and those that a verification from a checkpoint may ask for."""
    left = [number for number in range(1, 96) if stays(step(number), POLICY, {40})]
    assert left == [1, 10, 20, 30, 40, *range(41, 73), 80, 90, 95]


def test_what_tells_the_story_stays() -> None:
    """States, checkpoints, evaluations, warnings and the outcome stay; plain lines go."""
    log = events_pb2.LogLine
    for event in (
        events_pb2.Event(state=events_pb2.StateChange(to="RUNNING")),
        events_pb2.Event(checkpoint=events_pb2.CheckpointSaved(step=7)),
        events_pb2.Event(evaluation=events_pb2.EvaluationMetrics(step=7)),
        events_pb2.Event(log=log(severity=events_pb2.LOG_SEVERITY_WARNING)),
        events_pb2.Event(outcome=events_pb2.AttemptOutcome()),
        events_pb2.Event(seq=20, device=events_pb2.DeviceMetrics()),
        events_pb2.Event(task=events_pb2.TaskMetrics(step=7, is_validation=True)),
    ):
        assert stays(event, POLICY, ())
    for event in (
        events_pb2.Event(log=log(severity=events_pb2.LOG_SEVERITY_INFO)),
        events_pb2.Event(seq=21, device=events_pb2.DeviceMetrics()),
        events_pb2.Event(task=events_pb2.TaskMetrics(step=7)),
    ):
        assert not stays(event, POLICY, ())
