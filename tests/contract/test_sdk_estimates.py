"""What a spec would take, as the SDK returns it and the command line shows it."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from tests.support import fake_scheduler
from tests.support.fake_scheduler import FakeScheduler
from tuneforge import Client
from tuneforge.cli.app import cli
from tuneforge.job_values import Interval
from tuneforge.v1 import jobs_pb2, scheduler_pb2


@pytest.fixture
def scheduler() -> FakeScheduler:
    """A scheduler that knows a price."""
    seconds = jobs_pb2.Interval(expected=3600.0, lowest=1800.0, highest=7200.0)
    estimate = jobs_pb2.ResourceEstimate(
        memory=jobs_pb2.MemoryEstimate(
            weights_bytes=10**9,
            activations_bytes=5 * 10**8,
            total_bytes=15 * 10**8,
            lowest_bytes=13 * 10**8,
            highest_bytes=17 * 10**8,
            runs=4,
        ),
        device="cpu",
        steps=30,
        tokens_per_step=512,
        step_seconds=jobs_pb2.Interval(expected=0.5, lowest=0.4, highest=0.75),
        total_seconds=seconds,
        device_seconds=seconds,
        cost=jobs_pb2.Interval(expected=2.0, lowest=1.0, highest=4.0),
        currency="EUR",
        rate_runs=4,
        problem="the best node is too small",
    )
    return FakeScheduler(estimate=estimate)


@pytest.fixture
def address(scheduler: FakeScheduler) -> Iterator[str]:
    """Where it listens."""
    with fake_scheduler.serve(scheduler) as found:
        yield found


SPEC = {"base": {"model": "tiny/1"}, "data": {"train": {"dataset": "rows"}}, "supervised": {}, "lora": {"rank": 4}}


def test_the_sdk_returns_values(scheduler: FakeScheduler, address: str) -> None:
    """Parts, intervals and sources as plain values; what is not known is None; names in the spec are made whole."""
    with Client(scheduler=address) as client:
        found = client.jobs.estimate(SPEC)
        (row,) = client.jobs.calibrations()
    (request, _) = scheduler.requests
    assert isinstance(request, scheduler_pb2.EstimateResourcesRequest)
    assert request.spec.base.model == "projects/default/models/tiny/versions/1"
    assert found.memory is not None
    assert (found.memory.total_bytes, found.memory.highest_bytes, found.memory.runs) == (15 * 10**8, 17 * 10**8, 4)
    assert found.step_seconds == Interval(expected=0.5, lowest=0.4, highest=0.75)
    assert found.energy_joules is None
    assert (row.family, row.memory_ratio.expected) == ("LlamaForCausalLM", 1.02)


def test_the_command_line_shows_where_figures_come_from(address: str) -> None:
    """Flags are those of `submit`; intervals, sources, price and the problem are shown."""
    arguments = ["jobs", "estimate", "--base", "tiny/1", "--data", "rows", "--rank", "4"]
    done = CliRunner().invoke(cli, arguments, env={"TUNEFORGE_SCHEDULER_ADDRESS": address})
    assert done.exit_code == 0, done.output
    for words in ("corrected by 4 measured runs", "30 of 512 tokens", "0.5 s (0.4 s to 0.75 s", "2 EUR", "too small"):
        assert words in done.output
    assert "energy" not in done.output
    done = CliRunner().invoke(cli, [*arguments, "--json"], env={"TUNEFORGE_SCHEDULER_ADDRESS": address})
    assert json.loads(done.output)["steps"] == 30


def test_the_table_of_errors_is_listed(address: str) -> None:
    """One line a family, with the median and the extremes."""
    done = CliRunner().invoke(cli, ["jobs", "calibration"], env={"TUNEFORGE_SCHEDULER_ADDRESS": address})
    assert done.exit_code == 0, done.output
    assert "LlamaForCausalLM" in done.output
    assert "1.02" in done.output
