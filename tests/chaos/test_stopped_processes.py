"""A node that stands still for longer than its lease, and goes on when its job has long been replaced."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from services.scheduler.doctor import examine
from services.scheduler.doctor.__main__ import read_only
from tests.support.chaos.cluster import Cluster, running_cluster
from tests.support.chaos.killing import curve, problems_of, spec_of
from tests.support.trainer_node import eventually
from tuneforge import JobHandle
from tuneforge.job_values import JobState
from tuneforge.specs.spec import Resources

pytestmark = [pytest.mark.heavy, pytest.mark.chaos]


def stop_all_of(cluster: Cluster, job: JobHandle) -> tuple[int, list[int]]:
    """Stops the node of a job's newest attempt with its worker; returns the attempt's number and what was stopped."""
    newest = next(job.attempts())
    name, number = newest.node.rpartition("/")[2], int(newest.name.rpartition("/")[2])
    place = cluster.folder / name / "trainer/jobs/default" / job.id / "attempts" / f"{number}-0/worker.json"
    worker = eventually(lambda: place.exists() and json.loads(place.read_text()), "a worker")
    agent = cluster.members[name].process
    assert agent is not None
    stopped = [int(worker["pid"]), agent.pid]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    return number, stopped


def test_a_node_that_stood_still_is_fenced(tmp_path: Path) -> None:
    """Stopped for twice its lease and more: another node goes on, and what the first one says later counts nothing."""
    spec = replace(spec_of(0), resources=Resources(lost_after_s=3))
    with running_cluster(tmp_path, nodes=2) as cluster, cluster.connect() as client:
        job = client.jobs.create(spec, job_id="stood-still")
        eventually(lambda: job.refresh().step >= 12, "step 12")
        number, stopped = stop_all_of(cluster, job)
        try:
            eventually(lambda: job.refresh().attempt > number and job.job.step > 0, "steps of the next attempt")
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        events = list(job.watch())
        assert job.refresh().state is JobState.SUCCEEDED
        assert list(problems_of(job.job.state, events)) == []
        assert len(list(client.models.versions("stood-still"))) == 1
        eventually(lambda: not cluster.workers(), "the end of every worker")
        again = client.jobs.create(spec, job_id="unbroken")
        assert curve(events) == curve(list(again.watch()))
    engine = read_only(tmp_path / "cluster" / "scheduler" / "scheduler.db")
    with engine.connect() as connection, connection.begin():
        assert examine(connection) == []
    engine.dispose()
