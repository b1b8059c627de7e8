"""What a run says before its first step: what was decided, on what, and what differs from what was asked for."""

from collections.abc import Mapping

import torch

from services.modelkit.hardware import computes_bf16
from services.trainer.engine import reports
from services.trainer.engine.corpus import Corpus
from services.trainer.engine.methods import PreparedModel
from services.trainer.engine.resolution import Resolution
from services.trainer.engine.training_task import EventSink
from tuneforge.specs.spec import ComputeType, TrainingSpec
from tuneforge.specs.wire import spec_to_proto
from tuneforge.v1 import events_pb2


def tell_what_was_replaced(spec: TrainingSpec, resolution: Resolution, device: torch.device, sink: EventSink) -> None:
    """Warns of what the device does not have."""
    wanted, used = spec.optimization.optimizer, resolution.spec.optimization.optimizer
    if used is not wanted:
        reports.warn(sink, f"The optimiser {wanted} pages its state to the host's memory; without a GPU it is {used}.")
    if spec.compute is ComputeType.FP16 and resolution.spec.compute is not ComputeType.FP16:
        reports.warn(sink, f"FP16 is for GPUs; this processor computes in {resolution.spec.compute.name}.")
    if spec.compute is ComputeType.BF16 and not computes_bf16(device):
        reports.warn(sink, "BF16 is not native to this device: its products are slower than those of FP32.")


def tell_what_was_lowered(decided: Resolution, resolution: Resolution, sink: EventSink) -> None:
    """Warns where fewer rows are computed at once than the spec or the checkpoint came to."""
    before, rows = (each.spec.optimization.rows_per_micro_batch for each in (decided, resolution))
    if rows < before:
        reports.warn(
            sink,
            f"{rows} rows are computed at once in place of {before}, with which memory ran out. A step has as many "
            "rows as before; the last bits of its sums may be others than they would have been.",
        )


def _environment(resolution: Resolution, prepared: PreparedModel) -> Mapping[str, str]:
    """Returns versions and devices as they are reported; with drawn weights, their digest too."""
    drawn = prepared.base.initial_weights
    return {**resolution.environment, **({"initial_weights": drawn} if drawn else {})}


def report_start(resolution: Resolution, prepared: PreparedModel, corpus: Corpus, sink: EventSink) -> None:
    """Reports what was decided, and which rows were left out or cut."""
    sink.emit(
        events_pb2.Resolved(
            spec=spec_to_proto(resolution.spec),
            environment=_environment(resolution, prepared),
            trainable_parameters=prepared.trainable_parameters,
            total_parameters=prepared.total_parameters,
            rows=len(corpus.examples),
            rows_dropped=corpus.dropped,
        )
    )
    if corpus.dropped or corpus.cut:
        limit = resolution.spec.data.max_tokens
        reports.note(
            sink,
            f"Rows longer than {limit} tokens: {corpus.dropped} left out, {corpus.cut} cut; "
            f"{len(corpus.examples)} rows are learned from.",
        )
