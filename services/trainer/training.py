"""A training run from its inputs to its artifact: `train`, which a worker calls, and `preload` for the fork server.

The order of things: what is on disk (checkpoint, rows), what is decided (`resolution`), the model (`methods`), the loop
(`loop`, read that first), and the files of the result.
"""

import importlib
import resource
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from services.modelkit.adapters import save_adapter, save_model
from services.modelkit.loading import TOKENIZER_FILES, read_config
from services.trainer import checkpoints, reports
from services.trainer.batches import BatchLimits, attention_share
from services.trainer.corpus import Corpus, read_corpus
from services.trainer.engine import Engine, EngineOptions
from services.trainer.faults import faults_named
from services.trainer.loop import Progress, Run, train_loop
from services.trainer.methods import PreparedModel, can_share_beginnings, prepare_model
from services.trainer.plan import StepPlan
from services.trainer.randomness import seed_all
from services.trainer.resolution import (
    Resolution,
    check_environment,
    check_inputs,
    check_spec,
    resolve,
)
from services.trainer.training_task import (
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
from tuneforge.data.masks import encode, encode_prompt
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.rows import Turn
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.errors import Reason
from tuneforge.manifest import IntegrityError, build
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.spec import Architecture, TrainingSpec
from tuneforge.specs.wire import spec_to_proto
from tuneforge.v1 import events_pb2

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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

_HEAVY_MODULES = (
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.cache_utils",
    "peft.tuners.lora.model",
    "peft.tuners.lora.bnb",
    "bitsandbytes",
    "tokenizers",
    "safetensors.torch",
    "tuneforge.data._environment",
    "torch.optim.adamw",
    "torch.utils.checkpoint",
    "numpy",
)
"""What transformers and PEFT import at the first use of a real class. Importing computes nothing."""


def preload() -> None:
    """Imports all that a run needs, so that a forked child imports nothing.

    Nothing is computed: a process that ran one parallel region with several threads cannot be forked safely.
    """
    for module in _HEAVY_MODULES:
        importlib.import_module(module)


class _StoppedEarly(Exception):
    """The run was asked to stop before its first step."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


def train(task: TrainingInputs, sink: EventSink, stop: Stop) -> TrainingResult:
    """Trains one attempt to its end, from the newest checkpoint of the job when there is one.

    Args:
        task: Spec and files.
        sink: Takes every report.
        stop: Asked at every step's end, and while the rows are read.

    Raises:
        TrainingFault: The run cannot go on; the reason says why.
    """
    with faults_named():
        try:
            return _train(task, sink, stop)
        except _StoppedEarly as stopped:
            is_cancelled = stopped.request is StopRequest.CANCEL
            result = RunResult.CANCELLED if is_cancelled else RunResult.INTERRUPTED
            return TrainingResult(result=result, step=0)


def _train(task: TrainingInputs, sink: EventSink, stop: Stop) -> TrainingResult:
    device = torch.device(task.device)
    spec, found = _defaults(task), _newest_checkpoint(task.checkpoints, sink)
    frozen = Resolution.from_json(found.facts["resolution"]) if found else None
    if frozen:
        check_spec(frozen, spec)
        check_environment(frozen, device=device, threads=task.threads)
    texts = _Texts(task.base[0].folder, spec)
    corpus = texts.read(task.train, stop)
    validation = texts.read(task.validation, stop) if task.validation else None
    _check_corpora(corpus, validation, spec)
    inputs = _input_digests(task, corpus, validation)
    if frozen:
        check_inputs(frozen, inputs)
    resolution = frozen or resolve(spec, corpus, inputs, device=device, threads=task.threads)
    # Checkpoints may be asked for at another pace than before: it changes no number.
    resolution = replace(resolution, spec=replace(resolution.spec, checkpointing=spec.checkpointing))
    torch.set_num_threads(resolution.threads)
    seed_all(resolution.spec.seed or 0)
    prepared = prepare_model(task.base, resolution.spec, device)
    engine = Engine(prepared.model, _engine_options(task, resolution, prepared, corpus, device))
    progress = _begin(engine, resolution, found, sink)
    sink.emit(_resolved(resolution, prepared, corpus))
    run = Run(
        spec=resolution.spec,
        plan=StepPlan(
            seed=resolution.spec.seed or 0,
            rows=len(corpus.examples),
            rows_per_step=resolution.spec.optimization.rows_per_step,
            total_steps=resolution.total_steps,
        ),
        corpus=corpus,
        validation=validation,
        prompts=tuple((prompt, texts.prompt(prompt, corpus)) for prompt in resolution.spec.evaluation.prompts),
        decode=texts.decode,
        facts={"resolution": resolution.to_json()},
    )
    result = train_loop(run, engine, progress, sink, stop)
    if result is not RunResult.SUCCEEDED:
        return TrainingResult(result=result, step=progress.step, metrics=_metrics(progress, device))
    return _finish(task, prepared, progress, device)


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


class _Texts:
    """Rows and prompts of a run as tokens, and back."""

    def __init__(self, folder: Path, spec: TrainingSpec) -> None:
        self._tokenizer: Tokenizer = load_tokenizer(folder)
        self._format = ChatFormat.load(folder, self._tokenizer)
        self._spec = spec

    def read(self, paths: Sequence[Path], stop: Stop) -> Corpus:
        def check_stop() -> None:
            if request := stop():
                raise _StoppedEarly(request)

        data = self._spec.data
        encode_row = partial(
            encode,
            tokenizer=self._tokenizer,
            chat_format=self._format,
            max_tokens=data.max_tokens,
            overlong=data.overlong,
        )
        return read_corpus(paths, encode_row, check_stop=check_stop)

    def prompt(self, prompt: str, corpus: Corpus) -> list[int]:
        """Returns a prompt's tokens, written as the prompts of the rows are."""
        content = [Turn(role="user", content=prompt)] if corpus.is_chat else prompt
        return encode_prompt(content, self._tokenizer, self._format)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _check_corpora(corpus: Corpus, validation: Corpus | None, spec: TrainingSpec) -> None:
    for name, rows in (("training", corpus), ("validation", validation)):
        if rows is None or rows.examples:
            continue
        raise TrainingFault(
            Reason.NOTHING_TO_LEARN,
            f"No {name} row has a token to learn; {rows.dropped} rows were left out because they are longer than "
            f"data.max_tokens = {spec.data.max_tokens}.",
            "Give rows with completions, raise data.max_tokens, or set data.overlong to TRUNCATE.",
            metadata={"dropped": str(rows.dropped), "max_tokens": str(spec.data.max_tokens)},
        )


def _input_digests(task: TrainingInputs, corpus: Corpus, validation: Corpus | None) -> dict[str, str]:
    return {
        "base": " ".join(layer.digest for layer in task.base),
        "train": corpus.digest,
        "validation": validation.digest if validation else "",
    }


def _engine_options(
    task: TrainingInputs, resolution: Resolution, prepared: PreparedModel, corpus: Corpus, device: torch.device
) -> EngineOptions:
    optimization, config = resolution.spec.optimization, prepared.base.model.config
    share = attention_share(
        width=config.hidden_size, layers=config.num_hidden_layers, linear_parameters=prepared.total_parameters
    )
    return EngineOptions(
        device=device,
        compute=resolution.spec.compute,
        limits=BatchLimits(
            max_rows=optimization.rows_per_micro_batch,
            max_tokens=resolution.micro_batch_tokens,
            attention_share=share,
            can_share=can_share_beginnings(prepared.base.model, max(corpus.lengths)),
        ),
        optimizer=optimization.optimizer,
        weight_decay=optimization.weight_decay or 0.0,
        max_grad_norm=optimization.max_grad_norm or 0.0,
        end_tokens=prepared.base.stop_ids | ({corpus.end_token} if corpus.end_token is not None else frozenset()),
        checkpoints=task.checkpoints,
        keep_last=resolution.spec.checkpointing.keep_last,
        attempt=task.attempt,
    )


def _begin(engine: Engine, resolution: Resolution, found: checkpoints.Checkpoint | None, sink: EventSink) -> Progress:
    # Again: what loading drew from the generators must not matter.
    seed_all(resolution.spec.seed or 0)
    if found is None:
        return Progress()
    engine.restore(found)
    sink.emit(events_pb2.ResumedFrom(step=found.step, attempt=found.attempt, digest=found.digest))
    return Progress(**found.facts["progress"])


def _resolved(resolution: Resolution, prepared: PreparedModel, corpus: Corpus) -> events_pb2.Resolved:
    return events_pb2.Resolved(
        spec=spec_to_proto(resolution.spec),
        environment=resolution.environment,
        trainable_parameters=prepared.trainable_parameters,
        total_parameters=prepared.total_parameters,
        rows=len(corpus.examples),
        rows_dropped=corpus.dropped,
    )


def _metrics(progress: Progress, device: torch.device) -> Mapping[str, float]:
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    metrics = {
        "train_seconds": progress.train_seconds,
        "tokens": float(progress.tokens),
        "peak_memory_bytes": float(peak),
        "loss": progress.loss,
        "evaluation_loss": progress.evaluation_loss,
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _finish(task: TrainingInputs, prepared: PreparedModel, progress: Progress, device: torch.device) -> TrainingResult:
    shutil.rmtree(task.output, ignore_errors=True)
    task.output.mkdir(parents=True)
    kind = ArtifactKind.MODEL if task.spec.lora is None else ArtifactKind.ADAPTER
    if kind is ArtifactKind.MODEL:
        save_model(prepared.model, task.output, [prepared.base.folder / name for name in TOKENIZER_FILES])
    else:
        save_adapter(prepared.model, task.output)
    return TrainingResult(
        result=RunResult.SUCCEEDED,
        step=progress.step,
        artifact=build(task.output),
        artifact_kind=kind,
        metrics=_metrics(progress, device),
    )
