"""Several processes that train one model give the numbers of one process, and a broken gang goes on bit for bit."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.gang_run import GangRunner, Ran, gang_runner
from tests.support.training_run import SPEC, tiny_inputs
from tuneforge.specs.spec import (
    ContinuedPretrainingTask,
    Evaluation,
    FullMethod,
    LoraMethod,
    Method,
    PreferenceTask,
    QloraMethod,
    RewardModelTask,
    Task,
    TrainingSpec,
)
from tuneforge.v1 import events_pb2

METHODS: dict[str, Method] = {
    "lora": LoraMethod(rank=4),
    "qlora": QloraMethod(lora=LoraMethod(rank=4)),
    "full": FullMethod(),
}


@pytest.fixture(scope="module")
def gangs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GangRunner]:
    """One process for all tests that others are forked from."""
    with gang_runner(tmp_path_factory.mktemp("gangs") / "log") as runner:
        yield runner


def with_dropout(method: Method) -> TrainingSpec:
    """Returns a spec that draws random numbers in every step where the method can."""
    if isinstance(method, LoraMethod):
        method = replace(method, dropout=0.1)
    elif isinstance(method, QloraMethod):
        method = replace(method, lora=replace(method.lora, dropout=0.1))
    return replace(SPEC, method=method)


def numbers(*ran: Ran) -> dict[int, tuple[float, float, str]]:
    """Returns loss, gradient norm and rows of each step of the first process; of one that came twice, the last."""
    return {step.step: (step.loss, step.grad_norm, step.rows_digest) for each in ran for step in each.sink.steps}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_learns(method: str, gangs: GangRunner, tmp_path: Path) -> None:
    """The same rows give the same losses and gradient norms, and the first process alone reports.

    Every third step has one row, so that one process has nothing to compute in it.
    """
    spec = replace(
        SPEC, method=METHODS[method], evaluation=Evaluation(every_steps=4, prompts=("Say",), max_new_tokens=3)
    )
    alone = gangs.train(tmp_path / "alone", spec, size=1, rows=9, validation=True)[0]
    first, second = gangs.train(tmp_path / "two", spec, rows=9, validation=True)
    assert [first.end["result"], second.end["result"]] == ["SUCCEEDED", "SUCCEEDED"], (first.end, second.end)
    ours, theirs = numbers(first), numbers(alone)
    assert sorted(ours) == list(range(1, 10))
    for step, (loss, norm, rows) in theirs.items():
        assert rows == ours[step][2]
        assert ours[step][0] == pytest.approx(loss, abs=1e-5)
        assert ours[step][1] == pytest.approx(norm, rel=1e-4)
    measured = [[each.loss for each in ran.sink.of(events_pb2.EvaluationMetrics)] for ran in (first, alone)]
    assert measured[0] == pytest.approx(measured[1], abs=1e-5)
    assert [each.tokens for each in first.sink.steps] == [each.tokens for each in alone.sink.steps]
    assert first.sink.of(events_pb2.Sample)[-1].completion == alone.sink.of(events_pb2.Sample)[-1].completion
    assert second.sink.payloads == []
    assert second.end["digest"] is None


@pytest.mark.parametrize(
    ("task", "method"),
    [
        (PreferenceTask(), "lora"),
        pytest.param(PreferenceTask(), "full", marks=pytest.mark.heavy),
        pytest.param(PreferenceTask(), "qlora", marks=pytest.mark.heavy),
        pytest.param(RewardModelTask(), "lora", marks=pytest.mark.heavy),
        pytest.param(RewardModelTask(), "full", marks=pytest.mark.heavy),
        pytest.param(ContinuedPretrainingTask(), "full", marks=pytest.mark.heavy),
    ],
)
def test_every_task_is_learned_together(task: Task, method: str, gangs: GangRunner, tmp_path: Path) -> None:
    """Two processes give the losses and the figures of one, whatever a loss counts."""
    # At a rate that is not too high for the task: else each step makes the last bits' difference ten times as large.
    spec = replace(SPEC, method=METHODS[method], task=task)
    spec = replace(spec, optimization=replace(spec.optimization, learning_rate=1e-3))
    alone = gangs.train(tmp_path / "alone", spec, size=1, rows=9)[0]
    first, second = gangs.train(tmp_path / "two", spec, rows=9)
    assert [ran.end["result"] for ran in (alone, first, second)] == ["SUCCEEDED"] * 3, (
        alone.end,
        first.end,
        second.end,
    )
    for step, (loss, norm, rows) in numbers(alone).items():
        assert rows == numbers(first)[step][2]
        assert numbers(first)[step][0] == pytest.approx(loss, abs=1e-5)
        assert numbers(first)[step][1] == pytest.approx(norm, rel=1e-3)
    ours, theirs = ([dict(each.values) for each in ran.sink.of(events_pb2.TaskMetrics)] for ran in (first, alone))
    assert len(ours) == len(theirs)
    for found, expected in zip(ours, theirs, strict=True):
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("task", "method", "size"),
    [
        (None, "lora", 2),
        pytest.param(None, "qlora", 3, marks=pytest.mark.heavy),  # of three numbers the order of adding matters
        pytest.param(None, "full", 3, marks=pytest.mark.heavy),
        pytest.param(PreferenceTask(), "lora", 2, marks=pytest.mark.heavy),
        pytest.param(PreferenceTask(), "full", 2, marks=pytest.mark.heavy),
        pytest.param(PreferenceTask(), "qlora", 2, marks=pytest.mark.heavy),
        pytest.param(RewardModelTask(), "lora", 2, marks=pytest.mark.heavy),
    ],
)
def test_a_broken_gang_goes_on_with_the_same_bits(
    task: Task | None, method: str, size: int, gangs: GangRunner, tmp_path: Path
) -> None:
    """One process is killed, then one is asked to stop: all end each time, and go on from the first's checkpoint."""
    evaluation = Evaluation(every_steps=2, use_best=True)
    spec = replace(with_dropout(METHODS[method]), task=task, evaluation=evaluation)
    whole = gangs.train(tmp_path / "unbroken", spec, size=size, validation=True)
    assert [ran.end.get("result") for ran in whole] == ["SUCCEEDED"] * size, [(ran.status, ran.end) for ran in whole]
    unbroken, job, last_rank = whole[0], tmp_path / "broken", size - 1
    first, *_, killed = gangs.train(job, spec, size=size, validation=True, ranks={last_rank: {"kill_after": 3}})
    assert killed.status == -signal.SIGKILL
    assert (first.end["reason"], first.end["fault"]) == ("GANG_BROKEN", "infrastructure"), first.end
    stopped = gangs.train(job, spec, size=size, attempt=2, validation=True, ranks={last_rank: {"stop_after": 2}})
    assert [ran.end["result"] for ran in stopped] == ["INTERRUPTED"] * size, [ran.end for ran in stopped]
    assert len({ran.end["step"] for ran in stopped}) == 1
    assert list((job / "checkpoints-1").glob("*")) == []
    last = gangs.train(job, spec, size=size, attempt=3, validation=True)[0]
    assert [each.step for each in last.sink.of(events_pb2.ResumedFrom)] == [stopped[0].end["step"]]
    assert numbers(first, stopped[0], last) == numbers(unbroken)
    assert last.end["digest"] == unbroken.end["digest"]


def test_a_frozen_process_ends_the_others(gangs: GangRunner, tmp_path: Path) -> None:
    """A process that neither answers nor dies costs the others their patience and not for ever."""
    spec = replace(SPEC, method=METHODS["lora"])
    orders = {0: {"timeout_s": 5.0}, 1: {"timeout_s": 5.0, "freeze_after": 2}}
    first, _ = gangs.train(tmp_path, spec, ranks=orders)
    assert (first.end["reason"], first.end["fault"]) == ("GANG_BROKEN", "infrastructure"), first.end


def test_who_does_not_come_is_not_waited_for_for_ever(gangs: GangRunner, tmp_path: Path) -> None:
    """A process that waits for others that never come says so."""
    spec = replace(SPEC, method=METHODS["lora"])
    (alone,) = gangs.train(tmp_path / "alone", spec, size=1, ranks={0: {"size": 2, "timeout_s": 1.0}})
    assert (alone.end["reason"], alone.end["fault"]) == ("GANG_BROKEN", "infrastructure")
    assert "Not all 2 processes" in alone.end["message"]


def test_processes_with_other_rows_are_refused(gangs: GangRunner, tmp_path: Path) -> None:
    """Nobody trains with a process that read something else, and the answer names what."""
    spec = replace(SPEC, method=METHODS["lora"])
    tiny_inputs(tmp_path / "other", spec, rows=8)
    first, second = gangs.train(tmp_path / "job", spec, ranks={1: {"inputs": str(tmp_path / "other")}})
    assert (second.end["reason"], second.end["fault"]) == ("GANG_MIXED", "user")
    assert "has train" in second.end["message"]
    assert first.end["reason"] == "GANG_BROKEN"


def test_a_gang_of_another_size_is_refused(gangs: GangRunner, tmp_path: Path) -> None:
    """A cancel of one process cancels all; then one process alone would not go on exactly, and says so."""
    spec = replace(SPEC, method=METHODS["lora"])
    cancelled = gangs.train(tmp_path, spec, ranks={1: {"stop_after": 3, "stop": "cancel"}})
    assert [ran.end["result"] for ran in cancelled] == ["CANCELLED", "CANCELLED"]
    alone = gangs.train(tmp_path, spec, size=1, attempt=2)[0]
    assert alone.end["reason"] == "RESUME_MISMATCH"
    assert "processes 2" in alone.end["message"]
