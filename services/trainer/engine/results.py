"""The end of a run: its weights are looked at, written as files that the ecosystem loads, described and checked."""

import resource
import shutil
from collections.abc import Mapping

import torch

from services.modelkit.adapters import save_adapter, save_model
from services.modelkit.loading import TOKENIZER_FILES, read_config
from services.trainer.engine.documents import ResultFacts, write_documents
from services.trainer.engine.methods import PreparedModel
from services.trainer.engine.resolution import Resolution
from services.trainer.engine.result_checks import check_result
from services.trainer.engine.run import Progress
from services.trainer.engine.training_task import (
    ArtifactKind,
    RunResult,
    TrainingFault,
    TrainingInputs,
    TrainingResult,
)
from tuneforge.errors import Reason
from tuneforge.manifest import build
from tuneforge.specs.profile_documents import model_id_of


def figures(progress: Progress, device: torch.device, rows_per_step: int = 0) -> Mapping[str, float]:
    """Returns the final figures of a run, as `TrainingResult.metrics` names them."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    metrics = {
        "train_seconds": progress.train_seconds,
        "tokens": float(progress.tokens),
        "peak_memory_bytes": float(peak),
        "train_samples_per_second": progress.step * rows_per_step / progress.train_seconds
        if rows_per_step and progress.train_seconds
        else None,
        "loss": progress.loss,
        "evaluation_loss": progress.evaluation_loss,
        "best_evaluation_loss": progress.best_loss,
    }
    return {name: value for name, value in metrics.items() if value is not None}


def finish(
    task: TrainingInputs, prepared: PreparedModel, progress: Progress, resolution: Resolution, device: torch.device
) -> TrainingResult:
    """Writes the artifact of a run that has come to its end into `task.output`, and checks it.

    Raises:
        TrainingFault: LOSS_NOT_FINITE, when a weight is no finite number.
    """
    _check_finite(prepared)
    metrics = figures(progress, device, resolution.spec.optimization.rows_per_step)
    shutil.rmtree(task.output, ignore_errors=True)
    task.output.mkdir(parents=True)
    kind = ArtifactKind.MODEL if task.spec.lora is None else ArtifactKind.ADAPTER
    if kind is ArtifactKind.MODEL:
        save_model(prepared.model, task.output, [prepared.base.folder / name for name in TOKENIZER_FILES])
    else:
        save_adapter(prepared.model, task.output)
    profile = write_documents(task.output, _result_facts(task, prepared, resolution, metrics))
    checks, not_run = check_result(metrics, progress.completions, task.checkpoints, profile)
    return TrainingResult(
        result=RunResult.SUCCEEDED,
        step=progress.step,
        artifact=build(task.output),
        artifact_kind=kind,
        metrics=metrics,
        checks=checks,
        not_run=not_run,
    )


def _result_facts(
    task: TrainingInputs, prepared: PreparedModel, resolution: Resolution, metrics: Mapping[str, float]
) -> ResultFacts:
    base, config = task.base[-1], read_config(task.base[0].folder)
    own = prepared.trainable_parameters if resolution.spec.lora else 0
    return ResultFacts(
        spec=resolution.spec,
        base_id=model_id_of(base.ref_version, base.folder.name),
        base_version=base.ref_version,
        base_digest=base.digest,
        base_folder=prepared.base.folder,
        architecture=config["architectures"][0],
        base_parameters=prepared.total_parameters - own,
        inputs=resolution.inputs,
        environment=resolution.environment,
        initial_weights=prepared.base.initial_weights,
        metrics=metrics,
    )


def _check_finite(prepared: PreparedModel) -> None:
    """Refuses to publish what the last update broke: no later step would have noticed."""
    for name, parameter in prepared.model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise TrainingFault(
                Reason.LOSS_NOT_FINITE,
                f"After the last step {name} holds a value that is no finite number.",
                "Lower optimization.learning_rate, or compute in FP32.",
                metadata={"weight": name},
            )
