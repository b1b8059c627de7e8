"""The end of a run: its weights are looked at, written as files that the ecosystem loads, described and checked."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from services.modelkit.adapters import save_adapter, save_model
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.loading import TOKENIZER_FILES, read_config
from services.trainer.engine import reports
from services.trainer.engine.corpus import Example
from services.trainer.engine.documents import MergeFacts, ResultFacts, write_documents
from services.trainer.engine.merged import form_of_run, merge, merge_facts, put_together, release
from services.trainer.engine.methods import PreparedModel
from services.trainer.engine.peak import read_peaks
from services.trainer.engine.report import write_report
from services.trainer.engine.resolution import Resolution
from services.trainer.engine.result_checks import check_result
from services.trainer.engine.run import Progress, Run
from services.trainer.engine.training_task import (
    ArtifactKind,
    EventSink,
    RunResult,
    TrainingFault,
    TrainingInputs,
    TrainingResult,
)
from services.trainer.engine.verbs import Engine
from tuneforge.checks import Check
from tuneforge.errors import Reason
from tuneforge.manifest import build
from tuneforge.specs.defaults import MIN_AGREEMENT
from tuneforge.specs.profile_documents import method_word, model_id_of
from tuneforge.specs.spec import Merge, RewardModelTask

_PROMPTS: Final = 5
_ANSWER_TOKENS: Final = 16
"""Enough to see whether a model says anything at all."""


def figures(progress: Progress, device: torch.device, rows_per_step: int = 0) -> Mapping[str, float]:
    """Returns the final figures of a run, as `TrainingResult.metrics` names them."""
    metrics = {
        "train_seconds": progress.train_seconds,
        "tokens": float(progress.tokens),
        "computed_tokens": float(progress.computed_tokens),
        **read_peaks(device).figures(),
        "train_samples_per_second": progress.step * rows_per_step / progress.train_seconds
        if rows_per_step and progress.train_seconds
        else None,
        "loss": progress.loss,
        "evaluation_loss": progress.evaluation_loss,
        "best_evaluation_loss": progress.best_loss,
    }
    return {name: value for name, value in metrics.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known of a run when its last step is done."""

    progress: Progress
    resolution: Resolution
    answers: Sequence[tuple[str, str]]
    """What the model said to each prompt it was asked at the end."""


def answered(run: Run, engine: Engine, progress: Progress) -> list[tuple[str, str]]:
    """Returns the spec's prompts with what the model said to them; without prompts, the beginnings of some rows.

    A reward model says nothing.
    """
    if isinstance(run.spec.task, RewardModelTask):
        return []
    if run.prompts:
        return [(prompt, said) for (prompt, _), said in zip(run.prompts, progress.completions, strict=True)]
    return completed_rows((run.validation or run.corpus).examples, engine.sample, run.decode)


def completed_rows(
    examples: Sequence[Example],
    sample: Callable[[list[list[int]], int], list[list[int]]],
    decode: Callable[[list[int]], str],
) -> list[tuple[str, str]]:
    """Lets a model complete the beginnings of a few rows; returns each with what it said, as text.

    Args:
        examples: Their first ones are taken.
        sample: Completes prompts with at most so many new tokens.
        decode: Makes text of token ids.
    """
    prompts = [example.tokens_T[: _prompt_tokens(example)].tolist() for example in examples[:_PROMPTS]]
    completions = sample(prompts, _ANSWER_TOKENS)
    return [(decode(ids), decode(said)) for ids, said in zip(prompts, completions, strict=True)]


def _prompt_tokens(example: Example) -> int:
    """Returns how many tokens come before the first that is learned; of a row that is learned whole, half of them."""
    first = int(example.labels_S[0])
    return first if first > 1 else max(1, len(example.tokens_T) // 2)


def finish(task: TrainingInputs, run: Run, prepared: PreparedModel, ending: Ending, sink: EventSink) -> TrainingResult:
    """Writes the artifact of a run that has come to its end into `task.output`, and checks it.

    Raises:
        TrainingFault: LOSS_NOT_FINITE, when a weight is no finite number.
    """
    _check_finite(prepared)
    spec = ending.resolution.spec
    metrics = dict(figures(ending.progress, torch.device(task.device), spec.optimization.rows_per_step))
    shutil.rmtree(task.output, ignore_errors=True)
    task.output.mkdir(parents=True)
    merged: MergeFacts | None = None
    merge_check: Check | None = None
    if spec.lora is None:
        save_model(prepared.model, task.output, [prepared.base.folder / name for name in TOKENIZER_FILES])
    else:
        save_adapter(prepared.model, task.output)
        if spec.merge is not None:
            release(prepared.model)
            merged, merge_check = _merge(task, run, spec.merge, sink)
            metrics |= merged.figures if merged else {}
    is_adapter = spec.lora is not None and merged is None
    facts = result_facts(
        task,
        ending.resolution,
        metrics,
        parameters=prepared.total_parameters - (prepared.trainable_parameters if spec.lora else 0),
        initial_weights=prepared.base.initial_weights,
        merged=merged,
    )
    profile = write_documents(task.output, facts)
    completions = [said for _, said in ending.answers]
    checks, not_run = check_result(metrics, completions, spec.evaluation.keywords, task.checkpoints, profile)
    checks = tuple(sorted((*checks, *([merge_check] if merge_check else [])), key=lambda check: check.name))
    write_report(
        task.output,
        facts,
        points=ending.progress.curve,
        evaluations=ending.progress.evaluations,
        answers=ending.answers,
        checks=checks,
        not_run=not_run,
    )
    return TrainingResult(
        result=RunResult.SUCCEEDED,
        step=ending.progress.step,
        artifact=build(task.output),
        artifact_kind=ArtifactKind.ADAPTER if is_adapter else ArtifactKind.MODEL,
        metrics=metrics,
        checks=checks,
        not_run=not_run,
    )


def _merge(task: TrainingInputs, run: Run, wish: Merge, sink: EventSink) -> tuple[MergeFacts | None, Check]:
    """Makes the adapter in the output folder a merged model, where the two agree; else says why not and leaves it."""
    manifest = build(task.output)
    adapter = LocalArtifact(
        folder=task.output, manifest=manifest, kind="adapter", ref_version="", digest=manifest.digest
    )
    folder = task.output.with_name(f".merged-{task.output.name}")
    held = run.validation or run.corpus
    form = form_of_run(task.base, run.spec)
    least = MIN_AGREEMENT if wish.min_agreement is None else wish.min_agreement
    try:
        model = merge([*task.base, adapter], folder, form, wish, held.examples, torch.device(task.device))
    except InvalidModel as error:  # the adapter is as good as it was
        check = Check(name="merge_divergence", passed=False, message=f"It cannot be merged. {error.message}"[:1000])
    else:
        check = model.divergence.check(least, "validation" if run.validation else "training")
        if check.passed:
            put_together(task.output, folder)
            reports.note(sink, f"The adapter is merged into its base. {check.message}")
            return merge_facts(model, form, wish, method_word(run.spec)), check
    shutil.rmtree(folder, ignore_errors=True)
    reports.warn(sink, f"The result is the adapter, not a merged model. {check.message}")
    return None, check


def result_facts(
    task: TrainingInputs,
    resolution: Resolution,
    metrics: Mapping[str, float],
    *,
    parameters: int,
    initial_weights: str | None,
    merged: MergeFacts | None = None,
) -> ResultFacts:
    """Returns what is known of a result.

    Args:
        task: The run's files.
        resolution: What was decided.
        metrics: Final figures.
        parameters: Weights of the whole model, adapters left out.
        initial_weights: Digest of drawn weights; None where the base has weight files.
        merged: Of a merged model.
    """
    base, root = task.base[-1], task.base[0].folder
    return ResultFacts(
        spec=resolution.spec,
        base_id=model_id_of(base.ref_version, base.folder.name),
        base_version=base.ref_version,
        base_digest=base.digest,
        base_folder=root,
        architecture=read_config(root)["architectures"][0],
        base_parameters=parameters,
        inputs=resolution.inputs,
        environment=resolution.environment,
        initial_weights=initial_weights,
        metrics=metrics,
        merged=merged,
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
