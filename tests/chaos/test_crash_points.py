"""Every point at which a crash may come while a job is submitted, claimed, run, saved, uploaded, ended or cancelled.

The scheduler's own points are enumerated here: its process dies before, inside and after each of its writes, one after
the other, until a life of a job has no more of them. What other processes own is covered by the tests that are named.
"""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest
import structlog

from tests.support.chaos.record import FULL, keep
from tests.support.chaos.world.script import Script, Story, Wish
from tests.support.chaos.world.world import Outcome, play

ROOT = Path(__file__).parents[2]
RECOVERY_S = 10.0
"""Longest time that a crash may cost, the second included in which the process is away."""

_EACH_WRITE = "tests/chaos/test_crash_points.py::test_the_scheduler_dies_around_each_of_its_writes"
_EACH_STEP = "tests/suite/test_registry_killed_at_each_step.py::test_all_or_nothing_whenever_it_is_killed"
_SAVE = "tests/unit/trainer_engine/test_checkpoints.py::test_a_crash_at_any_moment_costs_no_older_checkpoint"
_CUT = "tests/unit/trainer_engine/test_checkpoint_writer.py::test_a_checkpoint_cut_at_any_byte_is_passed_over"
_UPLOAD = "tests/suite/test_storage_killed_at_each_step.py::test_an_upload_into_s3_killed_anywhere_is_repeated"
_COPY = "tests/unit/test_durable_checkpoints.py::test_a_kill_costs_no_checkpoint"
_FAULTS = "tests/suite/test_trainer_faults.py::"
_RUNS = "tests/contract/test_scheduler_runs.py::"

POINTS: dict[str, tuple[str, ...]] = {
    "CP1 submit: before the transaction": (_EACH_WRITE,),
    "CP2 submit: inside the transaction": (_EACH_WRITE,),
    "CP3 submit: committed, not answered": (
        _EACH_WRITE,
        "tests/contract/test_scheduler_jobs.py::test_repeated_request_gives_the_first_answer",
    ),
    "CP4 claim: committed, not started": (_EACH_WRITE, f"{_RUNS}test_restart_observes_a_start_of_unknown_outcome"),
    "CP5 claim: written down, not forked": (f"{_FAULTS}test_attempt_that_was_accepted_starts_after_a_restart",),
    "CP6 claim: forked, not recorded": (f"{_FAULTS}test_worker_that_died_with_its_agent_is_lost",),
    "CP7 claim: recorded, no word yet": (f"{_FAULTS}test_killed_agent_is_replaced_and_adopts",),
    "CP8 run: in the middle of a heartbeat": (_EACH_WRITE,),
    "CP9 run: renewed, not answered": (_EACH_WRITE,),
    "CP10 run: lease run out while it stood still": (
        "tests/chaos/test_stopped_processes.py::test_a_node_that_stood_still_is_fenced",
        "tests/contract/test_scheduler_nodes.py::test_lost_node_is_replaced_and_fenced",
    ),
    "CP11 checkpoint: while a file is written": (_SAVE, _CUT),
    "CP12 checkpoint: before its manifest": (_SAVE,),
    "CP13 checkpoint: before the rename": (_SAVE,),
    "CP14 checkpoint: before the folder is synced": (_SAVE,),
    "CP15 checkpoint: before its row": (
        _EACH_WRITE,
        "tests/contract/test_scheduler_checkpoints.py::test_a_copy_told_without_its_save_counts",
    ),
    "CP16 checkpoint: while the old one is deleted": (_SAVE,),
    "CP17 upload: in the middle of a part": (_EACH_STEP, _UPLOAD),
    "CP18 upload: all parts, not completed": (_UPLOAD,),
    "CP19 upload: completed, no manifest": (_UPLOAD, _COPY),
    "CP20 upload: manifest, no row": (_COPY, _EACH_STEP),
    "CP21 end: before the compare-and-set": (_EACH_WRITE,),
    "CP22 end: inside the transaction": (_EACH_WRITE,),
    "CP23 end: committed, not delivered": (_EACH_WRITE, f"{_RUNS}test_publication_survives_a_restart"),
    "CP24 end: delivered, not marked": (_EACH_WRITE, f"{_RUNS}test_lost_publish_reply_publishes_once"),
    "CP25 cancel: committed, not said": (
        _EACH_WRITE,
        "tests/contract/test_scheduler_jobs.py::test_cancel_survives_a_restart",
    ),
    "CP26 cancel: said while it ends well": ("tests/chaos/test_races.py::test_a_race_has_one_outcome",),
}
"""Crash point -> the tests that make it and look at what is left."""


def test_every_crash_point_has_a_test() -> None:
    """All 26 points are there, and each test that is named exists."""
    assert [point.split()[0] for point in POINTS] == [f"CP{number}" for number in range(1, 27)]
    for point, tests in POINTS.items():
        for test in tests:
            file, _, name = test.partition("::")
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            found = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, kinds)}
            assert name in found, f"{point}: {test} does not exist"


def life(*wishes: Wish, nodes: int = 1) -> Story:
    """Returns a job's life without any other fault."""
    script = Script(saves_every=1, is_durable=True, fails_at=0, nodes=nodes)
    created = Wish(0.1, "create", "j1")
    return Story(nodes=(1,) * nodes, jobs={"j1": script}, wishes=(created, *wishes), faults=(), budget=50)


LIVES = {
    "ends well": life(),
    "is cancelled": life(Wish(1.6, "cancel", "j1")),
    "is paused": life(Wish(1.6, "pause", "j1")),
    "is on two nodes": life(nodes=2),
}
MOMENTS = ("before", "inside", "after") if FULL else ("inside", "after")
"""Before a transaction and inside it leave the same on disk."""


@pytest.mark.chaos
@pytest.mark.parametrize("name", LIVES)
def test_the_scheduler_dies_around_each_of_its_writes(name: str) -> None:
    """Before, inside and after the n-th write for every n: the job ends, counted once, within ten seconds more."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    told = LIVES[name]
    calm = play(1, told)
    assert not calm.problems
    costs: list[float] = []
    for moment in MOMENTS:
        for write in range(1, 200):
            outcome = play(1, told, (moment, write))
            if not outcome.kills:
                break
            _expect_sound(outcome, f"{name}, {moment} write {write}")
            costs.append(outcome.seconds - calm.seconds)
    structlog.configure(**before)
    assert len(costs) >= 8 * len(MOMENTS)
    assert max(costs) <= RECOVERY_S
    facts = {
        "deaths": len(costs),
        "violations": 0,
        "cost_of_a_death_median_s": round(statistics.median(costs), 2),
        "cost_of_a_death_longest_s": round(max(costs), 2),
    }
    what = f"The scheduler dies before, inside and after each of its writes while a job {name}; virtual seconds."
    keep(f"crash_points_{name.replace(' ', '_')}", what, facts)


def _expect_sound(outcome: Outcome, where: str) -> None:
    """A cancel may come too late while nobody hears it; one that was acknowledged counts."""
    lines = "\n".join(outcome.lines)
    assert not outcome.problems, f"{where}: {outcome.problems}\n{lines}"
    assert set(outcome.states.values()) <= {"SUCCEEDED", "CANCELLED"}, f"{where}\n{lines}"
