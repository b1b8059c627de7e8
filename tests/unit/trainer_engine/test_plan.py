"""The rows of a step are a pure function of seed, epoch and step."""

from hypothesis import given
from hypothesis import strategies as st

from services.trainer.engine.plan import StepPlan, plan, steps_per_epoch
from tuneforge.specs.workload import steps_of


@given(rows=st.integers(1, 200), rows_per_step=st.integers(1, 40), seed=st.integers(0, 2**64 - 1))
def test_a_pass_has_every_row_once(rows: int, rows_per_step: int, seed: int) -> None:
    """The steps of one pass hold every row exactly once."""
    steps = range(steps_per_epoch(rows, rows_per_step))
    seen = [row for step in steps for row in plan(seed, 3, step, rows=rows, rows_per_step=rows_per_step)]
    assert sorted(seen) == list(range(rows))


def test_passes_and_seeds_give_other_orders() -> None:
    """Each pass and each seed shuffles anew."""
    orders = {plan(seed, epoch, 0, rows=50, rows_per_step=50) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_the_order_never_changes() -> None:
    """The order is part of the contract of a resume: it stays the same in every release."""
    assert plan(7, 2, 1, rows=10, rows_per_step=4) == (8, 5, 1, 3)


def test_steps_count_through_passes() -> None:
    """Step numbers run on from one pass to the next, with a short last step in each."""
    steps = StepPlan(seed=0, rows=10, rows_per_step=4, total_steps=7)
    assert [len(steps.rows_of(step)) for step in range(1, 8)] == [4, 4, 2, 4, 4, 2, 4]
    assert [steps.epochs_after(step) for step in (1, 3, 7)] == [0.4, 1.0, 2.4]


def test_the_length_of_a_run() -> None:
    """Whole passes end with a pass, a fraction in its middle, and a number of steps counts alone."""
    assert steps_of(10, 4, epochs=3.0, max_steps=None) == 9
    assert steps_of(10, 4, epochs=1.5, max_steps=None) == 5
    assert steps_of(1000, 8, epochs=0.001, max_steps=None) == 1
    assert steps_of(10, 4, epochs=3.0, max_steps=2) == 2
