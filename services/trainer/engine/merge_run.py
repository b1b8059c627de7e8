"""A run without a step: an adapter that is there already becomes a whole model, or is refused with how far it is."""

import shutil
from pathlib import Path

import torch

from services.modelkit.adapters import CONFIG_FILE, WEIGHTS_FILE
from services.modelkit.initialization import INITIAL_WEIGHTS
from services.modelkit.loading import max_positions, read_config
from services.trainer.engine import evaluation, reports
from services.trainer.engine.documents import write_documents
from services.trainer.engine.merged import (
    ADAPTER_FOLDER,
    MergedModel,
    form_of_version,
    merge,
    merge_facts,
    read_metadata,
)
from services.trainer.engine.report import write_report
from services.trainer.engine.resolution import Resolution
from services.trainer.engine.result_checks import check_result
from services.trainer.engine.results import completed_rows, result_facts
from services.trainer.engine.texts import Texts
from services.trainer.engine.training_task import (
    ArtifactKind,
    EventSink,
    RunResult,
    TrainingFault,
    TrainingInputs,
    TrainingResult,
)
from tuneforge.checks import Check
from tuneforge.errors import Reason
from tuneforge.manifest import build
from tuneforge.specs.defaults import MIN_AGREEMENT
from tuneforge.specs.spec import ComputeType, Merge
from tuneforge.specs.wire import spec_to_proto
from tuneforge.v1 import events_pb2


def merge_version(task: TrainingInputs, resolution: Resolution, texts: Texts, sink: EventSink) -> TrainingResult:
    """Merges the uppermost adapter of the base with all below it, and publishes what agrees with it.

    Args:
        task: The run's files; its base ends with an adapter.
        resolution: What was decided.
        texts: Rows to compare on.
        sink: Takes every report.

    Raises:
        TrainingFault: INVALID_FIELD for a base without an adapter, INVALID_MODEL, MERGE_DIVERGED.
        IntegrityError: A file of a layer is not what its manifest says.
    """
    *below, adapter = task.base
    if not below:
        raise TrainingFault(
            Reason.INVALID_FIELD,
            "The base is a whole model, so there is nothing to merge.",
            "Give the version of an adapter.",
            metadata={"field": "base"},
        )
    sink.emit(_resolved(resolution, texts))
    wish = resolution.spec.merge or Merge()
    form = form_of_version(below, adapter)
    held, rows_of = (texts.validation, "validation") if texts.validation else (texts.train, "training")
    shutil.rmtree(task.output, ignore_errors=True)
    made = merge(task.base, task.output, form, wish, held.examples, torch.device(task.device))
    least = MIN_AGREEMENT if wish.min_agreement is None else wish.min_agreement
    check = made.divergence.check(least, rows_of)
    if not check.passed:
        shutil.rmtree(task.output, ignore_errors=True)
        raise _diverged(check)
    reports.note(sink, f"The adapter is merged into its base. {check.message}")
    _keep_adapter(adapter.folder, task.output / ADAPTER_FOLDER)
    told = read_metadata(adapter.folder)
    facts = result_facts(
        task,
        resolution,
        made.divergence.figures(),
        parameters=made.parameters,
        initial_weights=str(told[INITIAL_WEIGHTS]) if told.get(INITIAL_WEIGHTS) else None,
        merged=merge_facts(made, form, wish, str(told.get("method", ""))),
    )
    profile = write_documents(task.output, facts)
    answers = _answers(resolution, texts, made, task.output)
    said = [text for _, text in answers]
    found, not_run = check_result({}, said, resolution.spec.evaluation.keywords, task.checkpoints, profile)
    checks = tuple(sorted((*found, check), key=lambda each: each.name))
    write_report(task.output, facts, answers=answers, checks=checks, not_run=not_run)
    return TrainingResult(
        result=RunResult.SUCCEEDED,
        step=0,
        artifact=build(task.output),
        artifact_kind=ArtifactKind.MODEL,
        metrics=facts.metrics,
        checks=checks,
        not_run=not_run,
    )


def _keep_adapter(adapter: Path, folder: Path) -> None:
    folder.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(adapter / name, folder / name)


def _resolved(resolution: Resolution, texts: Texts) -> events_pb2.Resolved:
    return events_pb2.Resolved(
        spec=spec_to_proto(resolution.spec),
        environment=resolution.environment,
        rows=len(texts.train.examples),
        rows_dropped=texts.train.dropped,
    )


def _diverged(check: Check) -> TrainingFault:
    return TrainingFault(
        Reason.MERGE_DIVERGED,
        check.message,
        "Merge in FP32 (output.merge.format), lower output.merge.min_agreement, or use the adapter as it is.",
        metadata=check.details,
    )


def _answers(resolution: Resolution, texts: Texts, made: MergedModel, folder: Path) -> list[tuple[str, str]]:
    """Asks the merged model what it would be asked at the end of a run."""
    config = read_config(folder)

    def sample(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        return evaluation.complete(
            made.model,
            prompts,
            max_new_tokens=new_tokens,
            end_tokens=texts.end_tokens,
            compute=ComputeType.FP32,
        )

    prompts = texts.prompts(max_positions(config))
    if not prompts:
        return completed_rows((texts.validation or texts.train).examples, sample, texts.decode)
    completions = sample([ids for _, ids in prompts], resolution.spec.evaluation.max_new_tokens)
    return [(prompt, texts.decode(said)) for (prompt, _), said in zip(prompts, completions, strict=True)]
