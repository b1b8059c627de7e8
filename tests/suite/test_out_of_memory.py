"""A run whose memory is too small for the rows that it computes at once goes on with half of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.suite import connect, running_suite
from tests.support.tiny_model import make_tiny_model
from tuneforge.errors import Reason
from tuneforge.events import Resolved, StateChange, StepMetrics
from tuneforge.job_options import FaultBudget
from tuneforge.job_values import JobState

pytestmark = pytest.mark.heavy

VOCABULARY = 250_000
"""Logits of so many tokens are what a step's memory goes to: 0.3 GB a copy, of which there are several."""
MEMORY_BYTES = 1_300_000_000
SPEC = {
    "base": {"model": "wide/1"},
    "supervised": {},
    "lora": {"rank": 2},
    "data": {"train": {"dataset": "animals"}},
    "optimization": {"max_steps": 2, "rows_per_step": 8, "learning_rate": 0.01},
    "seed": 3,
}


def test_half_the_rows_at_once_fit(tmp_path: Path) -> None:
    """The first attempt ends by its limit, the next one computes half as many rows at once and has the same losses."""
    config = make_tiny_model(tmp_path / "model", hidden=32) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": VOCABULARY}))
    with running_suite(tmp_path / "suite") as suite, connect(suite) as client:
        client.models.import_config(config, "wide", seed=7)
        turns = [[("user", f"{index} say z"), ("assistant", f"{index} {50 * 'z'}")] for index in range(24)]
        rows = [{"messages": [{"role": role, "content": text} for role, text in row]} for row in turns]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        client.datasets.upload(tmp_path / "rows.jsonl", "animals")
        job = client.jobs.create({**SPEC, "resources": {"memory_bytes": MEMORY_BYTES}}, job_id="small")
        events = list(job.watch())
        ended = job.refresh()
        assert ended.state is JobState.SUCCEEDED
        assert ended.faults is not None
        assert ended.faults.user_faults == ended.faults.infrastructure_faults == 0
        second, first = job.attempts()
        assert first.failure is not None
        assert (first.failure.reason, first.fault_budget) == (Reason.OUT_OF_MEMORY, FaultBudget.MICRO_BATCH)
        asked, halved = (event.payload for event in events if isinstance(event.payload, Resolved))
        at_once = asked.spec.optimization.rows_per_micro_batch
        assert second.rows_at_once == halved.spec.optimization.rows_per_micro_batch == at_once // 2
        assert halved.environment["rows_at_once"] == f"{at_once} rows at once, then {at_once // 2}: memory ran out"
        told = [event.payload.message for event in events if isinstance(event.payload, StateChange)]
        assert any(
            f"It computed {at_once} rows at once; its next attempt computes {at_once // 2}" in each for each in told
        )
        assert [event.payload.step for event in events if isinstance(event.payload, StepMetrics)][-2:] == [1, 2]
