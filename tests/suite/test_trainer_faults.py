"""What a node loses when something is killed: nothing that was acknowledged, and no worker that could go on."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from google.protobuf.duration_pb2 import Duration

from services.trainer import adoption
from services.trainer.spool import segments
from tests.support.scripted_engine import BROKEN
from tests.support.trainer_node import TrainerProcess, attempt_name, eventually, running_trainer, scripted_spec
from tuneforge.v1 import errors_pb2, events_pb2, nodes_pb2, spec_pb2, trainer_pb2, types_pb2

LONG = 100_000
LOST, CANCELLED = nodes_pb2.ATTEMPT_STATE_LOST, nodes_pb2.ATTEMPT_STATE_CANCELLED
INTERRUPTED, SUCCEEDED = nodes_pb2.ATTEMPT_STATE_INTERRUPTED, nodes_pb2.ATTEMPT_STATE_SUCCEEDED


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[TrainerProcess]:
    """A node of its own, for it is killed."""
    with running_trainer(tmp_path) as process:
        yield process


def _begin(trainer: TrainerProcess, name: str, spec: spec_pb2.TrainingSpec | None = None) -> int:
    """Starts an attempt and returns the pid of its worker once it trains."""
    request = trainer_pb2.StartAttemptRequest(name=name, spec=spec or scripted_spec(steps=LONG), token="t")
    trainer.stub.StartAttempt(request)
    trainer.wait_step(name, 2)
    return trainer.worker_pid(name)


def _stop(trainer: TrainerProcess, name: str, mode: trainer_pb2.StopMode.ValueType, grace_s: int = 30) -> None:
    request = trainer_pb2.StopAttemptRequest(name=name, token="t", mode=mode, grace=Duration(seconds=grace_s))
    trainer.stub.StopAttempt(request)


def _fork_server(trainer: TrainerProcess) -> psutil.Process | None:
    assert trainer.process
    for child in psutil.Process(trainer.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just been killed
            if "services.trainer.forkserver" in child.cmdline():
                return child
    return None


def _is_gone(pid: int) -> bool:
    return adoption.identify(pid) is None


def _check_dense(events: list[events_pb2.Event]) -> None:
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    steps = [event.step.step for event in events if event.HasField("step")]
    assert steps == list(range(steps[0], steps[0] + len(steps)))


def test_killed_worker_is_lost_after_its_events(trainer: TrainerProcess) -> None:
    """`kill -9` of a worker: all its events come, then LOST with an infrastructure failure, and the slot is free."""
    name = attempt_name("victim")
    pid = _begin(trainer, name)
    before = trainer.attempt(name)
    os.kill(pid, signal.SIGKILL)
    events, status = trainer.watch(name)
    _check_dense(events)
    assert before is not None
    assert len(events) >= before.last_seq
    assert status.state == LOST
    assert status.failure.reason == errors_pb2.ERROR_REASON_WORKER_LOST
    assert status.failure.metadata["exit_code"] == "-9"
    assert not any(event.HasField("outcome") for event in events)
    _begin(trainer, attempt_name("victim", 2))


def test_killed_agent_is_replaced_and_adopts(trainer: TrainerProcess) -> None:
    """`kill -9` of the agent: the worker trains on, the next agent adopts it, and no event is missing or twice."""
    name = attempt_name("orphan")
    pid = _begin(trainer, name)
    seen: list[events_pb2.Event] = []
    for message in trainer.stub.WatchAttempt(trainer_pb2.WatchAttemptRequest(name=name)):
        seen += message.events
        if len(seen) > 5:
            break
    generation = trainer.stub.GetNode(trainer_pb2.GetNodeRequest()).generation
    trainer.end(signal.SIGKILL)
    assert not _is_gone(pid)
    trainer.start()
    assert trainer.stub.GetNode(trainer_pb2.GetNodeRequest()).generation != generation
    adopted = trainer.attempt(name)
    assert adopted is not None
    assert adopted.state == nodes_pb2.ATTEMPT_STATE_RUNNING
    assert trainer.worker_pid(name) == pid
    trainer.wait_step(name, adopted.step + 2)
    _stop(trainer, name, trainer_pb2.STOP_MODE_CHECKPOINT)
    rest, status = trainer.watch(name, seen[-1].seq)
    _check_dense(seen + rest)
    assert status.state == INTERRUPTED
    assert _is_gone(pid)


def test_worker_ends_well_while_nobody_is_there(trainer: TrainerProcess) -> None:
    """An attempt that succeeds while the agent is dead has succeeded for the next agent."""
    name = attempt_name("alone")
    pid = _begin(trainer, name, scripted_spec(steps=60, step_s=0.02))
    trainer.end(signal.SIGKILL)
    eventually(lambda: _is_gone(pid), "the worker's end")
    trainer.start()
    events, status = trainer.watch(name)
    _check_dense(events)
    assert status.state == SUCCEEDED


def test_worker_that_died_with_its_agent_is_lost(trainer: TrainerProcess) -> None:
    """Agent and worker killed together, the last record torn: the whole records are there, then LOST."""
    name = attempt_name("both")
    pid = _begin(trainer, name)
    trainer.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: _is_gone(pid), "the worker's end")
    path = segments(trainer.folder / "data/trainer/jobs/p/both/attempts/1-0/spool")[-1][1]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3)
    trainer.start()
    events, status = trainer.watch(name)
    _check_dense(events)
    assert (status.state, status.last_seq) == (LOST, len(events))


def test_killed_fork_server_is_replaced(trainer: TrainerProcess) -> None:
    """`kill -9` of the fork server: workers train on and their end is seen, and the next attempt starts."""
    name = attempt_name("first")
    pid = _begin(trainer, name)
    old = eventually(lambda: _fork_server(trainer), "a fork server")
    old.kill()
    replacement = eventually(lambda: (new := _fork_server(trainer)) and new.pid != old.pid and new, "a new one")
    assert replacement
    assert not _is_gone(pid)
    status = trainer.attempt(name)
    assert status is not None
    trainer.wait_step(name, status.step + 2)
    os.kill(pid, signal.SIGKILL)
    _, status = trainer.watch(name)
    assert (status.state, status.failure.metadata["exit_code"]) == (LOST, "-9")
    _begin(trainer, attempt_name("first", 2))


def test_attempt_that_was_accepted_starts_after_a_restart(trainer: TrainerProcess) -> None:
    """Killed between acceptance and fork, the agent still starts what it had accepted, once."""
    eventually(lambda: _fork_server(trainer), "a fork server").suspend()
    name = attempt_name("promised")
    request = trainer_pb2.StartAttemptRequest(name=name, spec=scripted_spec(), token="t")
    assert trainer.stub.StartAttempt(request).state == nodes_pb2.ATTEMPT_STATE_STARTING
    server = eventually(lambda: _fork_server(trainer), "the fork server")
    trainer.end(signal.SIGKILL)
    trainer.start()
    server.resume()  # the old one wakes up with the request in its socket: it must not start a second worker
    events, status = trainer.watch(name)
    _check_dense(events)
    assert status.state == SUCCEEDED
    assert sum(event.HasField("outcome") for event in events) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_agent_leaves_nothing_running(trainer: TrainerProcess, number: signal.Signals) -> None:
    """SIGTERM or SIGINT: the worker saves its state, every process ends, and the next attempt goes on from there."""
    name = attempt_name("tidy")
    pid = _begin(trainer, name)
    server = eventually(lambda: _fork_server(trainer), "a fork server")
    assert trainer.end(number) == 0
    assert _is_gone(pid)
    assert _is_gone(server.pid)
    trainer.start()
    events, status = trainer.watch(name)
    _check_dense(events)
    assert status.state == INTERRUPTED
    assert events[-1].outcome.result == events_pb2.ATTEMPT_RESULT_INTERRUPTED
    second = attempt_name("tidy", 2)
    _begin(trainer, second, scripted_spec(steps=status.step + 2))
    events, _ = trainer.watch(second)
    assert [event.resumed_from.step for event in events if event.HasField("resumed_from")] == [status.step]


def test_interrupt_of_the_terminal_reaches_the_agent_alone(trainer: TrainerProcess) -> None:
    """Workers and fork server lead sessions of their own and ignore SIGINT: the agent decides what Ctrl-C means."""
    name = attempt_name("terminal")
    pid = _begin(trainer, name)
    server = eventually(lambda: _fork_server(trainer), "a fork server")
    assert trainer.process
    assert len({os.getsid(each) for each in (pid, server.pid, trainer.process.pid)}) == 3
    step = trainer.attempt(name)
    assert step is not None
    os.killpg(pid, signal.SIGINT)
    os.killpg(server.pid, signal.SIGINT)
    trainer.wait_step(name, step.step + 2)
    assert not _is_gone(server.pid)


def test_worker_that_is_told_to_end_by_the_system_saves_its_state(trainer: TrainerProcess) -> None:
    """SIGTERM to the worker itself, as at a shutdown of the machine, is a request for a checkpoint."""
    name = attempt_name("shutdown")
    os.kill(_begin(trainer, name), signal.SIGTERM)
    assert trainer.watch(name)[1].state == INTERRUPTED


@pytest.mark.parametrize(
    ("mode", "state"), [(trainer_pb2.STOP_MODE_CANCEL, CANCELLED), (trainer_pb2.STOP_MODE_CHECKPOINT, LOST)]
)
def test_worker_that_does_not_stop_is_ended(
    trainer: TrainerProcess, mode: trainer_pb2.StopMode.ValueType, state: nodes_pb2.AttemptState.ValueType
) -> None:
    """After the grace time the process is ended: a cancel has its end, a checkpoint that was never made is a loss."""
    name = attempt_name("deaf")
    pid = _begin(trainer, name, scripted_spec(steps=LONG, behaviour="hang"))
    _stop(trainer, name, mode, grace_s=1)
    events, status = trainer.watch(name)
    assert status.state == state
    assert events[-1].HasField("outcome") is (state == CANCELLED)
    assert _is_gone(pid)


def test_stop_outlives_the_agent(trainer: TrainerProcess) -> None:
    """A grace time that was running when the agent was killed is kept by the next one."""
    name = attempt_name("deaf")
    pid = _begin(trainer, name, scripted_spec(steps=LONG, behaviour="hang"))
    _stop(trainer, name, trainer_pb2.STOP_MODE_CANCEL, grace_s=2)
    trainer.end(signal.SIGKILL)
    trainer.start()
    assert trainer.watch(name)[1].state == CANCELLED
    assert _is_gone(pid)


def test_attempt_without_a_worker_can_be_stopped(trainer: TrainerProcess) -> None:
    """A stop does not wait for the fork server: an attempt that has no worker yet ends at once."""
    eventually(lambda: _fork_server(trainer), "a fork server").suspend()
    name = attempt_name("early")
    trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=name, spec=scripted_spec(), token="t"))
    _stop(trainer, name, trainer_pb2.STOP_MODE_CANCEL)
    events, status = trainer.watch(name)
    assert status.state == CANCELLED
    assert [event.WhichOneof("payload") for event in events] == ["outcome"]
    eventually(lambda: _fork_server(trainer), "the fork server").resume()


def test_newer_attempt_ends_the_older_one(trainer: TrainerProcess) -> None:
    """A new attempt of a job ends the old one here first, so that one process at a time writes the checkpoints."""
    old, new = attempt_name("fenced", 1), attempt_name("fenced", 2)
    pid = _begin(trainer, old)
    trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=new, spec=scripted_spec(), token="u"))
    assert trainer.watch(new)[1].state == SUCCEEDED
    assert _is_gone(pid)
    status = trainer.attempt(old)
    assert status is not None
    assert status.state == CANCELLED


def test_full_spool_keeps_the_history(tmp_path: Path) -> None:
    """With the spool full, log lines stop and one Gap counts them; steps and outcome are all there."""
    with running_trainer(tmp_path, env={"TUNEFORGE_TRAINER_SPOOL_BYTES": str(1 << 20)}) as trainer:
        name = attempt_name("flood")
        spec = scripted_spec(steps=5, behaviour="flood")
        trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=name, spec=spec))
        events, status = trainer.watch(name)
        _check_dense(events)
        assert status.state == SUCCEEDED
        gaps = [event.gap for event in events if event.HasField("gap") and event.gap.kind == "log"]
        lines = sum(event.HasField("log") for event in events)
        assert [gap.dropped for gap in gaps] == [5 * 200 + 1 - lines]
        assert [event.step.step for event in events if event.HasField("step")] == [1, 2, 3, 4, 5]


def test_node_that_cannot_start_workers_says_so(tmp_path: Path) -> None:
    """When the fork server does not start, an attempt fails as a fault of the node, with what the log says last."""
    with running_trainer(tmp_path, env={BROKEN: "1"}) as trainer:
        name = attempt_name("stuck")
        trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=name, spec=scripted_spec()))
        events, status = trainer.watch(name)
        assert status.state == nodes_pb2.ATTEMPT_STATE_FAILED
        assert status.failure == events[-1].outcome.failure
        assert status.failure.fault == types_pb2.FAULT_CLASS_INFRASTRUCTURE
        assert "no engine, as the test wants" in status.failure.message


def test_leftovers_are_cleared(trainer: TrainerProcess) -> None:
    """Folders of attempts that were never accepted, or were being removed, are gone after a restart."""
    name = attempt_name("left")
    _begin(trainer, name, scripted_spec(steps=3))
    last = trainer.watch(name)[1].last_seq
    trainer.end(signal.SIGKILL)
    attempts = trainer.folder / "data/trainer/jobs/p/left/attempts"
    (attempts / "2-0").mkdir()
    (attempts / "2-0/request.binpb").write_bytes(b"")
    trainer.start()
    assert [path.name for path in attempts.iterdir()] == ["1-0"]
    trainer.stub.AckEvents(trainer_pb2.AckEventsRequest(name=name, token="t", seq=last, is_final=True))
    assert list(attempts.iterdir()) == []
