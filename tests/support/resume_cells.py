"""The cells of the table of exact resumes: task x method x optimiser x precision, pairwise, on a tiny Llama.

Each cell is trained twice: unbroken, and killed twice, each time right after a step was reported, so that the steps
behind the last checkpoint are lost and computed again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.trainer.engine.training import train
from services.trainer.engine.training_task import TrainingInputs
from tests.support.pairwise import covering
from tests.support.task_rows import write_task_rows
from tests.support.training_run import SPEC, Killed, RecordingSink, apart, never, tiny_inputs
from tuneforge.specs.spec import (
    BaseModel,
    ComputeType,
    ContinuedPretrainingTask,
    DataSource,
    FullMethod,
    LoraMethod,
    Method,
    Optimizer,
    PreferenceTask,
    QloraMethod,
    Quantization,
    RewardModelTask,
    SupervisedTask,
    Task,
    TrainingSpec,
)
from tuneforge.specs.validation import validate

_LORA: Final = LoraMethod(rank=4, dropout=0.1)
_DORA: Final = replace(_LORA, use_dora=True)
TASKS: Final[Mapping[str, Task]] = {
    "supervised": SupervisedTask(),
    "continued_pretraining": ContinuedPretrainingTask(),
    "preference": PreferenceTask(beta=0.5),
    "reward_model": RewardModelTask(),
}
METHODS: Final[Mapping[str, Method]] = {
    "lora": _LORA,
    "rslora": replace(_LORA, use_rslora=True),
    "dora": _DORA,
    "qlora_nf4": QloraMethod(lora=_LORA),
    "qlora_int8": QloraMethod(lora=_LORA, quantization=Quantization.INT8),
    "qdora_int8": QloraMethod(lora=_DORA, quantization=Quantization.INT8),
    "full": FullMethod(),
    "frozen": FullMethod(freeze_layers=1),
}
OPTIMIZERS: Final = ("adamw", "sgd", "adamw_8bit", "adafactor")
"""The paged ones are these on a CPU."""
PRECISIONS: Final = ("fp32", "bf16", "fp16")
"""On a CPU FP16 becomes what AUTO is there."""
FACTORS: Final = {
    "task": tuple(TASKS),
    "method": tuple(METHODS),
    "optimizer": OPTIMIZERS,
    "precision": PRECISIONS,
}
CELLS: Final = tuple(covering(FACTORS))
KILLS: Final = (3, 4)
"""Steps after which a run is killed; checkpoints are saved after every second one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What became of a cell."""

    refused: str = ""
    """The field that is wrong, where the spec is refused; empty: it ran."""
    is_exact: bool = False
    """Whether the killed run has the losses, gradient norms and bytes of the unbroken one."""
    steps: int = 0
    """Steps that were compared."""


def spec_of(cell: Mapping[str, str]) -> TrainingSpec:
    """Returns the spec of a cell."""
    optimization = replace(
        SPEC.optimization, optimizer=Optimizer(cell["optimizer"]), max_steps=5, learning_rate=1e-3, rows_per_step=3
    )
    return replace(
        SPEC,
        task=TASKS[cell["task"]],
        method=METHODS[cell["method"]],
        optimization=optimization,
        compute=ComputeType(cell["precision"]),
    )


def prove(cell: Mapping[str, str], folder: Path) -> Proof:
    """Trains a cell unbroken and killed, and compares them bit for bit."""
    spec = spec_of(cell)
    named = replace(
        spec, base=BaseModel(local_path="base"), data=replace(spec.data, train=DataSource(local_path="rows"))
    )
    if found := validate(named, allow_local_paths=True):
        return Proof(refused=", ".join(each.field for each in found))
    task = tiny_inputs(folder, spec)
    assert spec.task is not None
    write_task_rows(task.train[0], spec.task)
    unbroken = RecordingSink()
    expected = train(apart(task, "unbroken"), unbroken, never)
    broken, artifact = _killed(task)
    same = _numbers(broken) == _numbers(unbroken) and artifact == (expected.artifact and expected.artifact.digest)
    return Proof(is_exact=same and len(_numbers(unbroken)) == 5, steps=len(_numbers(unbroken)))


def _killed(task: TrainingInputs) -> tuple[RecordingSink, str | None]:
    everything = RecordingSink()
    for attempt, step in enumerate((*KILLS, 0), start=1):
        sink = RecordingSink(killed_after=step)
        try:
            result = train(replace(task, attempt=attempt), sink, never)
        except Killed:
            everything.payloads += sink.payloads
            continue
        everything.payloads += sink.payloads
        return everything, result.artifact.digest if result.artifact else None
    raise AssertionError("the last attempt is not killed")


def _numbers(sink: RecordingSink) -> dict[int, tuple[float, float, float, str]]:
    """Returns what each step reported; of a step that came twice, the last."""
    return {step.step: (step.loss, step.grad_norm, step.learning_rate, step.rows_digest) for step in sink.steps}
