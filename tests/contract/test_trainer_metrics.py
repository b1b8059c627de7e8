"""A node's `/metrics` while jobs run on it, scraped over HTTP and read by Prometheus' own parser."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.stores.ports import free_ports
from tests.support.exposition import Page
from tests.support.trainer_node import TrainerProcess, attempt_name, eventually, running_trainer, scripted_spec
from tuneforge.v1 import trainer_pb2

STATUS = "finetuning_job_status"


class Scraped:
    """A trainer and its page."""

    def __init__(self, trainer: TrainerProcess, port: int) -> None:
        self.trainer = trainer
        self._address = f"http://127.0.0.1:{port}/metrics"

    def page(self) -> Page:
        """Scrapes."""
        return Page.fetch(self._address)

    def value(self, name: str, job: str) -> float | None:
        """Returns a job's value of a metric with one sample a job."""
        return self.page().value(name, job_name=f"p/{job}")

    def cached(self) -> float | None:
        """Returns the bytes of the node's cache."""
        return self.page().value("tuneforge_trainer_cache_bytes")

    def start(self, job: str, *, steps: int = 3, step_s: float = 0.01, behaviour: str = "") -> str:
        """Starts an attempt and returns its name."""
        name = attempt_name(job)
        spec = scripted_spec(steps=steps, step_s=step_s, behaviour=behaviour)
        self.trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=name, spec=spec), timeout=30)
        return name


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Scraped]:
    """An unmanaged node with the scripted engine."""
    with scraped(tmp_path) as found:
        yield found


@contextmanager
def scraped(tmp_path: Path) -> Iterator[Scraped]:
    """Runs one."""
    port = free_ports(1)[0]
    env = {"TUNEFORGE_TRAINER_METRICS_LISTEN": f"127.0.0.1:{port}", "TUNEFORGE_TRAINER_SLOTS": "3"}
    with running_trainer(tmp_path, env=env) as trainer:
        yield Scraped(trainer, port)


def test_figures_move_step_by_step(node: Scraped) -> None:
    """While a job runs its status is 1 and its step grows; then it has succeeded and its duration is known."""
    name = node.start("good", steps=100_000, step_s=0.02)
    first = eventually(lambda: node.value("finetuning_training_step", "good"), "a first step")
    assert node.value(STATUS, "good") == 1
    eventually(lambda: (node.value("finetuning_training_step", "good") or 0) > first, "a later step")
    page = node.page()
    assert page.labels(STATUS) == [{"job_name": "p/good", "model_id": "tiny", "method": "lora"}]
    assert page.labels("finetuning_gpu_utilization_percent") == []
    node.trainer.stub.StopAttempt(
        trainer_pb2.StopAttemptRequest(name=name, mode=trainer_pb2.STOP_MODE_CHECKPOINT), timeout=30
    )
    eventually(lambda: node.value(STATUS, "good") == 4, "the pause")
    assert node.value("finetuning_checkpoints_total", "good") == 1
    assert node.value("finetuning_checkpoint_size_bytes_count", "good") == 1


def test_the_cache_is_measured_beside_the_loop(tmp_path: Path) -> None:
    """What it holds is told soon after the start; a scrape walks over no files."""
    blobs = tmp_path / "data/trainer/cache/blobs/00"
    blobs.mkdir(parents=True)
    (blobs / "one").write_bytes(bytes(1000))
    with scraped(tmp_path) as node:
        eventually(lambda: node.cached() == 1000, "the first measurement")
        (blobs / "two").write_bytes(bytes(1000))
        assert node.cached() == 1000


@pytest.mark.parametrize(("behaviour", "status"), [("", 2), ("fault", 3), ("crash", 3), ("exit", 3)])
def test_ends_are_told_with_their_duration(node: Scraped, behaviour: str, status: int) -> None:
    """A job that succeeded, failed with a reason, broke or lost its process: the right status, and its duration."""
    name = node.start("job", behaviour=behaviour)
    node.trainer.watch(name)
    assert node.value(STATUS, "job") == status
    assert node.value("finetuning_job_duration_seconds_count", "job") == 1


def test_figures_outlive_the_agent_and_the_attempt(node: Scraped) -> None:
    """After kill -9 of the agent the new one shows the same job; and an end that was acknowledged is still shown."""
    name = node.start("long", steps=100_000, step_s=0.02)
    eventually(lambda: node.value("finetuning_training_step", "long"), "a first step")
    node.trainer.end(signal.SIGKILL)
    node.trainer.start()
    eventually(lambda: node.value(STATUS, "long") == 1, "the adopted job")
    assert node.value("finetuning_training_step", "long")
    node.trainer.stub.StopAttempt(
        trainer_pb2.StopAttemptRequest(name=name, mode=trainer_pb2.STOP_MODE_CANCEL), timeout=30
    )
    _, status = node.trainer.watch(name)
    node.trainer.stub.AckEvents(trainer_pb2.AckEventsRequest(name=name, seq=status.last_seq, is_final=True), timeout=30)
    assert node.trainer.attempt(name) is None
    assert node.value(STATUS, "long") == 3
