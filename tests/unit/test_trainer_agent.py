"""The agent while a start is being written down: who asks meanwhile, and a caller that goes away."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from services.grpckit.errors import ServiceError
from services.trainer.agent import Agent
from services.trainer.folders import write_durably
from services.trainer.launching import WorkerLauncher
from services.trainer.node import Capacity
from services.trainer.orders import StopMode
from services.trainer.settings import TrainerSettings
from services.trainer.wire import read_start
from tests.support.event_loop import on_loop
from tests.support.trainer_node import attempt_name, scripted_spec
from tuneforge.names import AttemptName
from tuneforge.v1 import trainer_pb2

NAME = AttemptName.parse(attempt_name("j1"))


class SlowDisk:
    """A disk that takes as long as the test wants."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def write(self, path: Path, content: bytes) -> None:
        """Writes once the test says so."""
        self.asked.set()
        assert self.go_on.wait(30)
        write_durably(path, content)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    """The disk that the agent writes requests to; no worker is started for them."""

    def supervise_nothing(*_: Any, **__: Any) -> None:
        pass

    slow = SlowDisk()
    monkeypatch.setattr("services.trainer.agent.write_durably", slow.write)
    monkeypatch.setattr(Agent, "_supervise", supervise_nothing)
    return slow


def _agent(folder: Path) -> Agent:
    settings = TrainerSettings.from_env({"TUNEFORGE_DATA": str(folder), "TUNEFORGE_TRAINER_NODE": "n1"})
    (settings.inputs / "tiny").mkdir(parents=True)
    (settings.inputs / "rows.jsonl").write_text("{}\n")
    capacity = Capacity(devices=(), cpu_millis=1000, memory_bytes=10**9, slots=1)
    return Agent(settings, capacity, WorkerLauncher(folder / "log"), "")


def _start(agent: Agent) -> asyncio.Task[Any]:
    request = trainer_pb2.StartAttemptRequest(name=str(NAME), spec=scripted_spec(), token="t")
    return asyncio.create_task(agent.start_attempt(read_start(request)))


@on_loop
async def test_stop_waits_for_the_start_that_came_before(tmp_path: Path, disk: SlowDisk) -> None:
    """An attempt that is being written down is found by a stop, once it is there; an unknown one is not."""
    agent = _agent(tmp_path)
    await agent.start()
    starting = _start(agent)
    await asyncio.to_thread(disk.asked.wait, 30)
    looking = asyncio.create_task(agent.settled(NAME, 0))
    await asyncio.sleep(0.05)
    assert not looking.done()
    disk.go_on.set()
    assert agent.stop_attempt(await looking, StopMode.CANCEL, 1.0).state == "STOPPING"
    await starting
    with pytest.raises(ServiceError, match="no attempt"):
        await agent.settled(AttemptName.parse(attempt_name("j2")), 0)


@on_loop
async def test_caller_that_goes_away_leaves_no_hidden_attempt(tmp_path: Path, disk: SlowDisk) -> None:
    """A start whose caller has gone is carried through: what is on disk is known."""
    agent = _agent(tmp_path)
    await agent.start()
    starting = _start(agent)
    await asyncio.to_thread(disk.asked.wait, 30)
    starting.cancel()
    await asyncio.wait({starting})
    disk.go_on.set()
    assert (await agent.settled(NAME, 0)).assignment.name == NAME


@on_loop
async def test_supervision_that_is_called_as_it_is_cancelled_ends(tmp_path: Path, disk: SlowDisk) -> None:
    """Else a trainer that shuts down would wait for the end of a run that goes on."""
    agent = _agent(tmp_path)
    await agent.start()
    disk.go_on.set()
    await _start(agent)
    attempt = agent.attempt(NAME, 0)
    waiting = asyncio.create_task(attempt.wait_for_attention(60.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    attempt.call_attention()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
