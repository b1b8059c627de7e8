"""How jobs are ordered, from the environment."""

from __future__ import annotations

import pytest

from services.grpckit.settings import Environment, SettingsError
from services.scheduler.planning.queue import HOUR_MS, Rules
from services.scheduler.settings import order_from_env

PREFIX = "TUNEFORGE_SCHEDULER_"


def order(**variables: str) -> Rules:
    """Returns the rules of an environment."""
    reader = Environment({PREFIX + name: value for name, value in variables.items()})
    rules = order_from_env(reader)
    reader.finish()
    return rules


def test_an_empty_environment_gives_the_rules_that_are_simulated() -> None:
    """The loop decides by the same rules as the published simulation unless it is told otherwise."""
    assert order() == Rules()


def test_rules_are_set_in_seconds_and_device_hours() -> None:
    """Each knob reaches its rule."""
    rules = order(PREEMPTION="off", QUANTUM_S="30", RESERVE_AFTER_S="5", PROMOTE_AFTER_S="60", LEVELS_H="0.5,2, 8")
    assert (rules.preempts, rules.quantum_ms, rules.reserve_after_ms, rules.promote_after_ms) == (
        False,
        30_000,
        5000,
        60_000,
    )
    assert rules.level_ends_ms == (HOUR_MS // 2, 2 * HOUR_MS, 8 * HOUR_MS)


@pytest.mark.parametrize("text", ["", "10,1", "1,1", "a", "0,1", "nan", "1,inf"])
def test_levels_that_are_none_are_refused(text: str) -> None:
    """Not ascending, not above 0, or no numbers: the start says so; empty is the default."""
    if not text:
        assert order(LEVELS_H=text) == Rules()
        return
    with pytest.raises(SettingsError, match="LEVELS_H"):
        order(LEVELS_H=text)
