"""Which events of an old log stay."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from services.scheduler.compaction.rules import CompactionPolicy, ended_before_ms, stays
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


@example(ends=[62], sets=[(50, -20), (60, -25)], age_ms=50)
@given(
    ends=st.lists(st.integers(1, 100), min_size=1),
    sets=st.lists(st.tuples(st.integers(1, 100), st.integers(-50, 200)), max_size=4, unique_by=lambda each: each[0]),
    age_ms=st.integers(1, 100),
)
def test_an_age_is_the_same_by_a_clock_that_is_set(ends: list[int], sets: list[tuple[int, int]], age_ms: int) -> None:
    """Nothing younger is ever due; what is older is, where no moment came twice."""
    sets.sort()

    def said(steady_ms: int) -> int:
        return 1000 + steady_ms + sum(jump_ms for at_ms, jump_ms in sets if at_ms <= steady_ms)

    jumps = [(said(at_ms), jump_ms) for at_ms, jump_ms in sets]
    before_ms = ended_before_ms(said(101), age_ms / 1000, reversed(jumps))
    goes_back = any(jump_ms < 0 for _, jump_ms in sets)
    for end in ends:
        is_due, is_old = said(end) < before_ms, 101 - end > age_ms
        assert is_old or not is_due
        assert is_due or not is_old or goes_back
