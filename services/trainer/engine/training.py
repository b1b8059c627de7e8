"""A training run from its inputs to its artifact: `train`, which a worker calls, and `preload` for the fork server.

The order of things: what is on disk (checkpoint, rows), what is decided (`resolution`), the model (`methods`), the loop
(`loop`, read that first), and the files of the result (`results`).
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from services.modelkit.faults import InvalidModel
from services.modelkit.loading import damage_first, read_config
from services.trainer.engine import beginnings, checkpoints, gang_state, reports
from services.trainer.engine.batches import BatchLimits, attention_share
from services.trainer.engine.faults import faults_named
from services.trainer.engine.gang import Gang, voice
from services.trainer.engine.guards import check_effect
from services.trainer.engine.loop import train_loop
from services.trainer.engine.merge_run import merge_version
from services.trainer.engine.methods import PreparedModel, can_share_beginnings, prepare_model
from services.trainer.engine.out_of_memory import out_of_memory
from services.trainer.engine.peak import reset_peaks
from services.trainer.engine.plan import StepPlan
from services.trainer.engine.preloading import preload
from services.trainer.engine.randomness import exact_kernels, seed_all
from services.trainer.engine.rendezvous import join
from services.trainer.engine.resolution import (
    Resolution,
    check_alike,
    check_environment,
    check_inputs,
    check_spec,
    lowered,
    resolve,
    with_recompute,
    with_rows_at_once,
)
from services.trainer.engine.results import Ending, answered, figures, finish
from services.trainer.engine.run import Progress, Run
from services.trainer.engine.saving import tell_last
from services.trainer.engine.spread import Layout, layout_of
from services.trainer.engine.tasks import make_task
from services.trainer.engine.tasks.reference import ReferenceRun
from services.trainer.engine.texts import Texts
from services.trainer.engine.training_task import (
    ArtifactKind,
    EventSink,
    Fault,
    Payload,
    RunResult,
    StopRequest,
    TrainingFault,
    TrainingInputs,
    TrainingResult,
)
from services.trainer.engine.verbs import Engine, EngineOptions
from tuneforge.data.faults import RenderingError
from tuneforge.errors import Reason
from tuneforge.manifest import IntegrityError
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.spec import ActivationRecompute, MergeMethod, TrainingSpec
from tuneforge.v1 import events_pb2

__all__ = [
    "ArtifactKind",
    "EventSink",
    "Fault",
    "Payload",
    "RunResult",
    "StopRequest",
    "TrainingFault",
    "TrainingInputs",
    "TrainingResult",
    "preload",
    "train",
]

Stop = Callable[[], StopRequest | None]
"""Asked at every step's end whether the run shall stop."""


class _StoppedEarly(Exception):
    """The run was asked to stop while its rows were read."""

    def __init__(self, result: TrainingResult) -> None:
        super().__init__(result)
        self.result = result


def train(task: TrainingInputs, sink: EventSink, stop: Stop) -> TrainingResult:
    """Trains one attempt to its end, from the newest checkpoint of the job when there is one.

    Args:
        task: Spec and files.
        sink: Takes every report.
        stop: Asked at every step's end, and while the rows are read.

    Raises:
        TrainingFault: The run cannot go on; the reason says why.
        IntegrityError: A file of the base is not what its manifest says; whoever keeps the files should drop them.
    """
    with faults_named(partial(out_of_memory, task)), exact_kernels(is_asked=task.spec.deterministic):
        try:
            return _train(task, sink, stop)
        except _StoppedEarly as stopped:
            return stopped.result


def _train(task: TrainingInputs, sink: EventSink, stop: Stop) -> TrainingResult:
    device = torch.device(task.device)
    reset_peaks(device)
    gang = join(task.seat, device, partial(_check_stop, stop, 0))
    return _train_with(gang, task, voice(gang, sink), stop)


def _train_with(gang: Gang, task: TrainingInputs, sink: EventSink, stop: Stop) -> TrainingResult:
    device = torch.device(task.device)
    found = gang_state.shared(gang, _newest_checkpoint(task.checkpoints, sink) if gang.is_first else None)
    check_stop = partial(_check_stop, stop, found.step if found else 0)
    with damage_first(task.base, (InvalidModel, RenderingError, TrainingFault, LookupError, TypeError)):
        spec = _defaults(task)
        texts = Texts(task, spec, check_stop)
    decided = _resolution(gang, task, spec, found, texts)
    resolution = lowered(decided, task.rows_at_once)
    beginnings.tell_what_was_replaced(spec, resolution, device, sink)
    beginnings.tell_what_was_lowered(decided, resolution, sink)
    # Checkpoints may be asked for at another pace than before, and guards be stricter: that changes no number.
    resolution = replace(
        resolution, spec=replace(resolution.spec, checkpointing=spec.checkpointing, guards=spec.guards)
    )
    if task.replay_to:  # what is only done again leaves nothing behind
        resolution = replace(resolution, spec=_without_saves(resolution.spec))
    if spec.optimization.recompute is not ActivationRecompute.AUTO:  # nor does this
        resolution = replace(resolution, spec=with_recompute(resolution.spec, spec.optimization.recompute))
    torch.set_num_threads(resolution.threads)
    if isinstance(spec.method, MergeMethod):
        is_first = gang.is_first  # one process is enough
        return (
            merge_version(task, resolution, texts, sink)
            if is_first
            else TrainingResult(result=RunResult.SUCCEEDED, step=0)
        )
    seed_all(resolution.spec.seed or 0)
    layout = layout_of(resolution.spec.method, gang)
    # What is sharded goes to its device block by block: it need not fit there whole.
    prepared = prepare_model(task.base, resolution.spec, torch.device("cpu") if layout is Layout.SHARDED else device)
    run = _run(task, resolution, prepared, texts)
    options = _engine_options(task, resolution, prepared, texts, device)
    reference = _reference(task, resolution, prepared, options, check_stop)
    rows = [corpus.examples for corpus in (texts.train, texts.validation) if corpus]
    learned = make_task(resolution.spec, prepared.model, rows, reference)
    engine = Engine(prepared.model, learned, replace(options, gang=gang, layout=layout))
    progress = _begin(engine, run, found, sink, gang)
    _check_best(task, run, progress, sink, gang)
    beginnings.report_start(resolution, prepared, texts.train, sink)
    task.pulse.beat()
    try:
        result = train_loop(run, engine, progress, sink, gang.agreed(stop))
    finally:
        tell_last(engine.settle(), sink)  # nothing writes into the job's folder any more
        task.pulse.rest()
    if result is RunResult.SUCCEEDED and task.replay_to:
        digest = engine.weights_digest()
        return TrainingResult(result=result, step=progress.step, replayed_weights_digest=digest)
    if result is not RunResult.SUCCEEDED:
        return TrainingResult(result=result, step=progress.step, metrics=figures(progress, device))
    _use_best(task, run, engine, progress, sink, gang)
    answers = answered(run, engine, progress)
    if layout is Layout.SHARDED:
        prepared = _put_together(task, resolution, engine, gang) or prepared
    if not gang.is_first:
        return TrainingResult(result=result, step=progress.step, metrics=figures(progress, device))
    del engine  # and with it the optimiser's state: what follows may need the room
    check_effect(prepared.model, run.corpus.examples, resolution.spec.compute, resolution.spec.guards)
    return finish(task, run, prepared, Ending(progress=progress, resolution=resolution, answers=answers), sink)


def _without_saves(spec: TrainingSpec) -> TrainingSpec:
    return replace(
        spec,
        checkpointing=replace(spec.checkpointing, every_steps=0, keep_best=False),
        evaluation=replace(spec.evaluation, use_best=False),
    )


def _resolution(
    gang: Gang, task: TrainingInputs, spec: TrainingSpec, found: checkpoints.Checkpoint | None, texts: Texts
) -> Resolution:
    """Returns what was decided once: by the checkpoint, or by the first process now."""
    device, inputs = torch.device(task.device), _input_digests(task, texts)
    if found is not None:
        frozen = Resolution.from_json(found.facts["resolution"])
        check_inputs(frozen, inputs)
    if found is not None and found.digest != task.branches_from:
        check_spec(frozen, spec, is_lowered=bool(task.rows_at_once))
        check_environment(frozen, device=device, threads=task.threads, processes=gang.size)
        return frozen
    if task.rows_at_once:  # it was open: what an earlier attempt came to is no wish
        spec = with_rows_at_once(spec, 0)
    check_alike(gang, device, inputs)
    threads = gang.smallest(task.threads)
    decided = resolve(
        spec,
        texts.train,
        inputs,
        base=task.base[0].folder,
        device=device,
        threads=threads,
        processes=gang.size,
    )
    return decided if gang.is_alone else Resolution.from_json(gang.tell(decided.to_json))


def _put_together(task: TrainingInputs, resolution: Resolution, engine: Engine, gang: Gang) -> PreparedModel | None:
    """Returns a plain model with the weights of all shards, in the first process, for it writes the result."""
    weights = engine.whole_weights()
    if not gang.is_first:
        return None
    prepared = prepare_model(task.base, resolution.spec, torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in prepared.model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
    return prepared


def _check_best(task: TrainingInputs, run: Run, progress: Progress, sink: EventSink, gang: Gang) -> None:
    """Forgets the lowest validation loss where its checkpoint did not come along: another node had it.

    Where no step is left there will be no other one, and `_use_best` refuses.
    """
    step = progress.best_step
    if not run.spec.evaluation.use_best or step in (0, progress.step) or progress.step >= run.plan.total_steps:
        return
    if not gang.tell(lambda: checkpoints.is_there(task.checkpoints, step)):
        progress.best_loss, progress.best_step, progress.evaluations_since_best = None, 0, 0
        reports.warn(
            sink,
            f"The checkpoint with the lowest validation loss, after step {step}, is not to be had: the lowest one from "
            "here on counts.",
        )


def _use_best(task: TrainingInputs, run: Run, engine: Engine, progress: Progress, sink: EventSink, gang: Gang) -> None:
    """Takes back the weights with the lowest validation loss, where these were asked for and are not the last ones."""
    if not run.spec.evaluation.use_best or progress.best_step in (0, progress.step):
        return
    best = gang_state.shared(
        gang, checkpoints.load_step(task.checkpoints, progress.best_step) if gang.is_first else None
    )
    if best is None:
        raise TrainingFault(
            Reason.INTEGRITY,
            f"The checkpoint with the lowest validation loss, after step {progress.best_step}, is gone or damaged.",
            "Use another checkpoint, or turn evaluation.use_best off: the result has the last weights then.",
            metadata={"step": str(progress.best_step)},
        )
    engine.restore_weights(best)
    completions = engine.sample([ids for _, ids in run.prompts], run.spec.evaluation.max_new_tokens)
    progress.completions = [run.decode(completion) for completion in completions]
    reports.note(sink, f"The result has the weights after step {best.step}, with the lowest validation loss.")


def _check_stop(stop: Stop, step: int) -> None:
    if request := stop():
        is_cancelled = request is StopRequest.CANCEL
        result = RunResult.CANCELLED if is_cancelled else RunResult.INTERRUPTED
        raise _StoppedEarly(TrainingResult(result=result, step=step))


def _defaults(task: TrainingInputs) -> TrainingSpec:
    config = read_config(task.base[0].folder)
    architecture = Architecture(class_name=config["architectures"][0], config=config, tensors=())
    spec = with_defaults(task.spec, architecture)
    limit = architecture.max_positions
    if limit is not None and spec.data.max_tokens > limit:
        raise TrainingFault(
            Reason.INVALID_FIELD,
            f"data.max_tokens is {spec.data.max_tokens}, and the base model takes {limit} tokens.",
            f"Lower data.max_tokens to at most {limit}.",
            metadata={"field": "data.max_tokens", "value": str(spec.data.max_tokens), "limit": str(limit)},
        )
    return spec


def _newest_checkpoint(folder: Path, sink: EventSink) -> checkpoints.Checkpoint | None:
    for found in checkpoints.saved(folder):
        if isinstance(found, IntegrityError):
            reports.warn(sink, f"A checkpoint is damaged and passed over: {found}.")
            continue
        return checkpoints.load(found)
    return None


def _input_digests(task: TrainingInputs, texts: Texts) -> dict[str, str]:
    return {
        "base": " ".join(layer.digest for layer in task.base),
        "train": texts.train.digest,
        "validation": texts.validation.digest if texts.validation else "",
    }


def _run(task: TrainingInputs, resolution: Resolution, prepared: PreparedModel, texts: Texts) -> Run:
    return Run(
        spec=resolution.spec,
        plan=StepPlan(
            seed=resolution.spec.seed or 0,
            rows=len(texts.train.examples),
            rows_per_step=resolution.spec.optimization.rows_per_step,
            total_steps=resolution.total_steps,
        ),
        corpus=texts.train,
        validation=texts.validation,
        prompts=texts.prompts(prepared.base.max_positions),
        decode=texts.decode,
        facts={
            "resolution": resolution.to_json(),
            "spec_digest": resolution.spec_digest,
            "initial_weights": prepared.base.initial_weights,
        },
        last_step=task.replay_to or resolution.total_steps,
    )


def _engine_options(
    task: TrainingInputs, resolution: Resolution, prepared: PreparedModel, texts: Texts, device: torch.device
) -> EngineOptions:
    optimization, config = resolution.spec.optimization, prepared.base.model.config
    share = attention_share(
        width=config.hidden_size, layers=config.num_hidden_layers, linear_parameters=prepared.linear_parameters
    )
    can_share = can_share_beginnings(prepared.base.model, texts.longest)
    return EngineOptions(
        device=device,
        compute=resolution.spec.compute,
        limits=BatchLimits(
            max_rows=optimization.rows_per_micro_batch,
            max_tokens=resolution.micro_batch_tokens,
            attention_share=share,
            can_share=can_share,
            rows_apart=can_share,
        ),
        optimizer=optimization.optimizer,
        weight_decay=optimization.weight_decay or 0.0,
        max_grad_norm=optimization.max_grad_norm or 0.0,
        end_tokens=lambda: texts.end_tokens,
        checkpoints=task.checkpoints,
        keep_last=resolution.spec.checkpointing.keep_last,
        attempt=task.attempt,
        beat=task.pulse.beat,
    )


def _reference(
    task: TrainingInputs,
    resolution: Resolution,
    prepared: PreparedModel,
    options: EngineOptions,
    check_stop: Callable[[], None],
) -> ReferenceRun:
    return ReferenceRun(
        folder=task.checkpoints.parent / "reference",
        inputs={
            "base": resolution.inputs["base"],
            "initial_weights": prepared.base.initial_weights,
            "compute": options.compute,
            "environment": dict(resolution.environment),
            "limits": asdict(options.limits),
        },
        limits=options.limits,
        compute=options.compute,
        device=next(prepared.model.parameters()).device,  # not yet spread over the devices of a gang
        check_stop=check_stop,
    )


def _begin(engine: Engine, run: Run, found: checkpoints.Checkpoint | None, sink: EventSink, gang: Gang) -> Progress:
    # Again: what loading drew from the generators must not matter. Each process drops other inputs of its adapters.
    seed_all(((run.spec.seed or 0) + gang.rank) % 2**64)
    if found is None:
        return Progress()
    if (drawn := found.facts.get("initial_weights")) != run.facts["initial_weights"]:
        raise TrainingFault(
            Reason.RESUME_MISMATCH,
            f"The checkpoint goes on from drawn weights with the digest {drawn}, and others were drawn here.",
            "Resume on a node like the first one, or start a new job.",
            metadata={"expected": str(drawn), "found": str(run.facts["initial_weights"])},
        )
    progress = Progress.from_json(found.facts["progress"])
    engine.restore(found)
    sink.emit(events_pb2.ResumedFrom(step=found.step, attempt=found.attempt, digest=found.digest))
    return progress
