"""A real job gives way to one of a higher class, goes on at another node, and loses no bit of its curve."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.suite.test_durable_checkpoints import SPEC, curve, second_node
from tests.support.suite import connect, running_suite
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import PriorityClass, Scheduling
from tuneforge.events import CheckpointDurable, ResumedFrom, StateChange
from tuneforge.job_values import JobState

pytestmark = pytest.mark.heavy

LOW = Scheduling(priority=PriorityClass.LOW)
HIGH = Scheduling(priority=PriorityClass.HIGH, exclude_nodes=("n2",))


def test_a_job_that_gives_way_goes_on_elsewhere_bit_for_bit(tmp_path: Path) -> None:
    """It saves and leaves for the high one, runs on at the second node, and ends with the curve of an unbroken run."""
    with running_suite(tmp_path / "suite") as suite, connect(suite) as client:
        client.models.import_folder(make_tiny_model(tmp_path / "model", layers=2, hidden=128), "small")
        client.datasets.upload(write_rows(tmp_path / "rows.jsonl", 64), "animals")
        low = client.jobs.create(SPEC, job_id="low", scheduling=LOW)
        for event in low.watch():
            if isinstance(event.payload, CheckpointDurable):
                break
        high = client.jobs.create(
            replace(SPEC, optimization=replace(SPEC.optimization, max_steps=20)), job_id="high", scheduling=HIGH
        )
        for event in high.watch():
            if isinstance(event.payload, StateChange) and event.payload.to_state == "RUNNING":
                break
        assert low.refresh().state is JobState.QUEUED
        # The high one stands still meanwhile: its node is not free again before there is another one.
        stopped = suite.data / "trainer/jobs/default/high/attempts/1-0/worker.json"
        stopped_pid = int(json.loads(stopped.read_text())["pid"])
        os.kill(stopped_pid, signal.SIGSTOP)
        node = second_node(tmp_path / "n2", suite.address("registry"), suite.address("scheduler")).start()
        try:
            try:
                moved = curve(low)
            finally:
                os.kill(stopped_pid, signal.SIGCONT)
            ended = low.refresh()
            assert ended.state is JobState.SUCCEEDED
            newest, first = low.attempts()
            assert (newest.node, first.state) == ("nodes/n2", "INTERRUPTED")
            resumed = [event.payload for event in low.watch() if isinstance(event.payload, ResumedFrom)]
            assert resumed[-1].step >= 10
            assert (ended.ledger.preemptions, ended.ledger.lost_to_faults) == (1, 0.0)
            assert ended.ledger.saved > 0
            assert high.result().state is JobState.SUCCEEDED
            unbroken = client.jobs.create(SPEC, job_id="unbroken")
            assert curve(unbroken) == moved
        finally:
            node.end()
