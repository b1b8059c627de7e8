"""A thousand worlds with faults: the real scheduler on a virtual clock keeps its promises in each, and each ends.

`make test` plays the same thousand seeds each time; `make chaos` plays five thousand others, from the printed seed on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import pytest
import structlog

from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store import outbox
from tests.support.chaos.record import FULL, SEED, keep
from tests.support.chaos.world.script import FAULTS, story
from tests.support.chaos.world.world import Outcome, play

SEEDS = 1000
AT_ONCE = 125
FULL_SEEDS = 5_000
LEARNED = (2026112100145,)
"""Worlds beyond the first thousand in which a promise was broken once."""


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Every fault is logged many times over; what happened is in the trace."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


def expect_sound(outcome: Outcome) -> None:
    """Asserts that a world kept every promise; else shows what happened in it."""
    story_of_it = "\n".join(outcome.lines)
    assert not outcome.problems, f"seed {outcome.seed}: {outcome.problems}\n{story_of_it}"


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_every_world_keeps_its_promises_and_ends(first: int) -> None:
    """No job lost, none counted twice, logs dense, tokens growing, and once faults stop everything ends."""
    for seed in range(first, first + AT_ONCE):
        expect_sound(play(seed))


@pytest.mark.parametrize("seed", LEARNED)
def test_what_went_wrong_once_does_not_again(seed: int) -> None:
    """A message lost between two others of one commit left a hole in the log."""
    expect_sound(play(seed))


def test_the_same_seed_gives_the_same_trace() -> None:
    """A world is played twice and everything happens at the same virtual moment; the digest is printed."""
    for seed in (11, 29, 171):
        once, again = play(seed), play(seed)
        assert once.lines == again.lines
        assert once.trace == again.trace
        print(f"seed {seed}: trace {once.trace}")
    assert play(11).trace != play(29).trace


def test_every_kind_of_fault_happens() -> None:
    """Among the thousand worlds each kind of fault happens a hundred times at least."""
    counts = Counter(fault.kind for seed in range(SEEDS) for fault in story(seed).faults)
    assert set(counts) == set(FAULTS)
    assert min(counts.values()) >= 100


def _mislabel_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in the blob store is offered as the state of a later step."""
    real = checkpoint_store.keep_durable

    def keep_durable(tx: Any, job: int, node: str, attempt: int, copied: Any) -> None:
        real(tx, job, node, attempt, [replace(copy, step=copy.step + 1) for copy in copied])

    monkeypatch.setattr(checkpoint_store, "keep_durable", keep_durable)


def _lose_the_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that was not delivered at once is forgotten."""
    real = outbox.pending
    seen: set[tuple[int, int]] = set()

    def pending(connection: Any) -> Any:
        rows = [row for row in real(connection) if (row.job, row.token) not in seen]
        seen.update((row.job, row.token) for row in rows)
        return rows

    monkeypatch.setattr(outbox, "pending", pending)


@pytest.mark.parametrize("mutant", [_mislabel_checkpoints, _lose_the_outbox])
def test_a_scheduler_with_a_fault_of_its_own_is_caught(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    """Each of the guards, taken away, is missed by some of the first worlds: the simulation can fail."""
    mutant(monkeypatch)
    assert any(play(seed).problems for seed in range(40))


@pytest.mark.chaos
@pytest.mark.skipif(not FULL, reason="make chaos plays them")
def test_thousands_more_worlds() -> None:
    """Seeds that nobody has seen before, on all cores."""
    began = time.monotonic()
    first = SEED * 100_000
    starts = range(first, first + FULL_SEEDS, AT_ONCE)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for found, wrong in pool.map(_play_some, starts):
            counts.update(found)
            problems += wrong
    facts = {
        "worlds": FULL_SEEDS,
        "violations": len(problems),
        "jobs": sum(counts[state] for state in ("SUCCEEDED", "FAILED", "CANCELLED")),
        "succeeded": counts["SUCCEEDED"],
        "failed_as_scripted": counts["FAILED"],
        "cancelled_as_asked": counts["CANCELLED"],
        "attempts_started": counts["attempts"],
        "deaths_of_the_scheduler": counts["kills"],
        "seconds": round(time.monotonic() - began, 1),
    }
    keep("simulation", "Simulated worlds with faults: the real scheduler on a virtual clock.", facts)
    assert not problems, "\n".join(problems)


def _play_some(first: int) -> tuple[Counter[str], list[str]]:
    """Plays some seeds in a process of their own; returns what happened and what was wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    for seed in range(first, first + AT_ONCE):
        outcome = play(seed)
        problems += [f"seed {seed}: {problem}" for problem in outcome.problems]
        counts.update(outcome.states.values())
        counts["kills"] += outcome.kills
        counts["attempts"] += sum(" starts projects/" in line for line in outcome.lines)
    return counts, problems
