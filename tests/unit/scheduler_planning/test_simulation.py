"""The planner under a virtual clock: the same result each time, better than first come first served, and fair."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.scheduler.planning.plan import plan
from services.scheduler.planning.shares import HALF_LIFE_MS, decayed, given
from services.scheduler.simulation.__main__ import main
from services.scheduler.simulation.clock import Cluster, Simulation
from services.scheduler.simulation.figures import figures, unfairness
from services.scheduler.simulation.rivals import best_effort_fifo, strict_fifo
from services.scheduler.simulation.workload import (
    InvalidTrace,
    SimulatedJob,
    backlog,
    like_philly,
    read_trace,
    write_trace,
)

HEADER = "timestamp,duration,num_gpus,gpu_time,cluster\n"


def job(number: int, submit_s: int, run_s: int, devices: int = 1) -> SimulatedJob:
    """Returns a job of one project."""
    return SimulatedJob(number=number, project="p", submit_ms=submit_s * 1000, run_ms=run_s * 1000, devices=devices)


def test_first_come_first_served_by_hand() -> None:
    """Two devices, three jobs: what a person works out on paper."""
    jobs = [job(0, 0, 100), job(1, 1, 50, devices=2), job(2, 2, 10)]
    strict = Simulation(jobs, Cluster(devices_per_node=2), strict_fifo).run()
    assert [strict[number].end_ms for number in range(3)] == [100_000, 150_000, 160_000]
    best_effort = Simulation(jobs, Cluster(devices_per_node=2), best_effort_fifo).run()
    assert [best_effort[number].end_ms for number in range(3)] == [100_000, 150_000, 12_000]


def test_a_stopped_job_pays_for_its_restore_and_loses_nothing_else() -> None:
    """A long job gives way to a short one, comes back, and ends later by just what that cost."""
    hour = 3600
    jobs = [job(0, 0, 20 * hour), job(1, 2 * hour, 600)]
    simulation = Simulation(jobs, Cluster(devices_per_node=1, stop_ms=15_000, restore_ms=60_000), plan)
    courses = simulation.run()
    assert courses[0].stops == 1
    assert courses[1].start_ms == (2 * hour + 15) * 1000
    # It kept training while it left: only the other job's time and its own restore are lost.
    assert courses[0].end_ms == (20 * hour + 600 + 60) * 1000


def test_the_same_workload_gives_the_same_courses() -> None:
    """Nothing in a simulation depends on the moment it is run."""
    jobs = like_philly(seed=7, jobs=300, days=0.4)
    assert jobs == like_philly(seed=7, jobs=300, days=0.4)
    assert jobs != like_philly(seed=8, jobs=300, days=0.4)
    first, second = (Simulation(jobs, Cluster(nodes=4, devices_per_node=16), plan).run() for _ in range(2))
    assert first == second


def test_jobs_end_sooner_than_in_order_of_arrival() -> None:
    """On a made-up workload the mean completion falls and large jobs do not starve."""
    jobs = like_philly(seed=1, jobs=800, days=0.9)
    cluster = Cluster(devices_per_node=96)
    ours = figures(Simulation(jobs, cluster, plan).run().values())
    rival = figures(Simulation(jobs, cluster, best_effort_fifo).run().values())
    assert ours.jobs == rival.jobs == 800
    assert ours.mean_completion_h < rival.mean_completion_h
    assert ours.p99_wait_large_h < 0.2 * rival.p99_wait_large_h
    assert ours.overhead < 0.02


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 2.0, "c": 5.0}, {"a": 1.0, "b": 1.0}])
def test_projects_get_their_share(weights: dict[str, float]) -> None:
    """With more work than devices, each project's part of the device time is its weight's, within a tenth."""
    jobs = backlog(projects=list(weights), jobs=300, seed=3)
    simulation = Simulation(jobs, Cluster(nodes=4, devices_per_node=8, weights=weights), plan)
    simulation.run(until_ms=24 * 3_600_000)
    assert unfairness(simulation.given_ms, weights) <= 0.1
    assert sum(simulation.given_ms.values()) > 0.9 * 32 * simulation.now_ms


def test_usage_decays_by_half_in_a_day() -> None:
    """What was given in pieces counts the same as what was given at once."""
    assert decayed(8.0, HALF_LIFE_MS) == pytest.approx(4.0)
    hour = 3_600_000
    whole = given(3, 0, 5 * hour, 9 * hour)
    assert whole == pytest.approx(given(3, 0, 2 * hour, 9 * hour) + given(3, 2 * hour, 5 * hour, 9 * hour))
    assert given(1, 0, hour, hour) == pytest.approx(hour, rel=0.02)


def test_a_trace_is_read_back(tmp_path: Path) -> None:
    """What is written as a trace is the same workload again."""
    jobs = like_philly(seed=2, jobs=50, days=1.0)
    write_trace(tmp_path / "trace.csv", jobs)
    again = read_trace(tmp_path / "trace.csv")
    begin = jobs[0].submit_ms
    assert [(each.submit_ms, each.run_ms, each.devices, each.project) for each in again] == [
        (each.submit_ms - begin, each.run_ms, each.devices, each.project) for each in jobs
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "lacks the columns timestamp, duration"),
        (HEADER, "has no job"),
        (HEADER + "yesterday,1,1,1,x\n", "line 2"),
        (HEADER + "2017-11-06 00:02:11,long,1,1,x\n", "line 2: could not convert"),
        (HEADER + "2017-11-06 00:02:11,5,0,1,x\n", "num_gpus >= 1"),
        (HEADER + "2017-11-06 00:02:11,nan,1,1,x\n", "duration >= 0"),
        (HEADER + "2017-11-06 00:02:11,5\n", "line 2"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    """Whatever is wrong with a trace, the answer says where."""
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(InvalidTrace, match=says):
        read_trace(tmp_path / "trace.csv")


def test_the_command_prints_policies_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One column a policy; what cannot be simulated is refused with words."""
    made = ["--jobs", "60", "--days", "0.1", "--devices", "32"]
    assert main([*made, "--write-trace", str(tmp_path / "t.csv")]) == 0
    table = capsys.readouterr().out
    assert "strict-fifo  best-effort-fifo        fair-share" in table
    assert main(["--trace", str(tmp_path / "t.csv"), "--devices", "32"]) == 0
    assert capsys.readouterr().out == table
    assert main(["--trace", str(tmp_path / "missing.csv")]) == 2
    assert "missing.csv" in capsys.readouterr().err
    assert main([*made[:4], "--devices", "1"]) == 2
    assert "give --devices" in capsys.readouterr().err
    assert main([*made, "--write-trace", str(tmp_path / "nowhere" / "t.csv")]) == 2
    assert "the trace cannot be written" in capsys.readouterr().err
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe")
    assert main(["--trace", str(tmp_path / "t.csv")]) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err
    for wrong in (["--jobs", "0"], ["--days", "nan"], ["--days", "inf"], ["--days", "0"]):
        with pytest.raises(SystemExit):
            main(wrong)
        assert f"{wrong[0]} {wrong[1]} must be" in capsys.readouterr().err
