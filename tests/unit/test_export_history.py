"""A job's events as the points that exports draw."""

from __future__ import annotations

from tuneforge.events import event_from_proto
from tuneforge.exports.history import History
from tuneforge.v1 import events_pb2 as pb


def test_what_a_task_measures_is_drawn_and_rewound() -> None:
    """Rewards of preference tuning are points of their step, by the rows they are of; a resume voids them too."""
    history = History()
    for step in (1, 2):
        for payload in (
            pb.Event(attempt=1, step=pb.StepMetrics(step=step, loss=1.0)),
            pb.Event(attempt=1, task=pb.TaskMetrics(step=step, values={"rewards_margin": 0.5 * step}, rows=4)),
            pb.Event(
                attempt=1, task=pb.TaskMetrics(step=step, values={"rewards_margin": -1.0}, rows=2, is_validation=True)
            ),
        ):
            history.take(event_from_proto(payload))
    history.take(event_from_proto(pb.Event(attempt=2, resumed_from=pb.ResumedFrom(step=1, attempt=1))))
    found = {(point.name, point.step): point.value for point in history.points() if "rewards" in point.name}
    assert found == {("train/rewards_margin", 1): 0.5, ("eval/rewards_margin", 1): -1.0}
