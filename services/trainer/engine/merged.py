"""An adapter's run made into a whole model: merged, then held against the adapter before anything is published."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from services.modelkit.adapters import load_adapter
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.initialization import METADATA
from services.modelkit.loading import load_base, load_weights
from services.modelkit.merging import MergeOptions, merge_layers
from services.trainer.engine.corpus import Example
from services.trainer.engine.divergence import Divergence, compare, fits_in_float32, held_rows, logits_of
from services.trainer.engine.documents import MergeFacts
from services.trainer.engine.evaluation import keep_four_bit_weights
from services.trainer.engine.methods import choose_attention, load_format
from services.trainer.engine.precision import set_formats
from tuneforge.specs.spec import ComputeType, Merge, QloraMethod, Quantization, TrainingSpec, WeightFormat

ADAPTER_FOLDER = "adapters"
"""Folder of a merged model with the files of the adapter that is in it."""
_DTYPES = {WeightFormat.FP32: torch.float32, WeightFormat.BF16: torch.bfloat16, WeightFormat.FP16: torch.float16}


@dataclass(frozen=True, slots=True)
class BaseForm:
    """How the weights below an adapter lay in memory while it was trained."""

    quantization: Literal["nf4"] | None
    """None: whole."""
    dtype: torch.dtype
    """Format in which they were loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedModel:
    """A merged model on disk, not published yet."""

    divergence: Divergence
    """From its adapter."""
    model: Any
    """In float32 and in evaluation mode."""
    parameters: int
    """Its weights."""


def form_of_run(below: Sequence[LocalArtifact], spec: TrainingSpec) -> BaseForm:
    """Returns how a run of a resolved spec keeps the weights below its adapter."""
    quantization: Literal["nf4"] | None = "nf4" if isinstance(spec.method, QloraMethod) else None
    return BaseForm(quantization, load_format(below, spec.compute, is_frozen=True))


def form_of_version(below: Sequence[LocalArtifact], adapter: LocalArtifact) -> BaseForm:
    """Returns how the weights below a published adapter were kept, by what it says; whole where it says nothing.

    Raises:
        InvalidModel: They were kept in a form whose rounding cannot be merged into.
    """
    told = read_metadata(adapter.folder)
    kept = told.get("quantization") or {}
    if kept and not kept.get("bnb_4bit_use_double_quant"):
        raise InvalidModel(
            "The adapter was trained beside weights in 8 bits, or in 4 without double quantisation.",
            "Merge adapters that were trained beside whole weights or NF4; serve this one beside its base.",
        )
    compute = ComputeType.BF16 if told.get("precision") == "bf16" else ComputeType.FP32
    return BaseForm("nf4" if told.get("quantization") else None, load_format(below, compute, is_frozen=True))


def read_metadata(folder: Path) -> Mapping[str, Any]:
    """Returns what a version says of itself; nothing for one that was not made here."""
    try:
        content = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def merge(
    layers: Sequence[LocalArtifact],
    folder: Path,
    form: BaseForm,
    wish: Merge,
    examples: Sequence[Example],
    device: torch.device,
) -> MergedModel:
    """Writes the model that layers are together, and measures how far it is from the uppermost one as an adapter.

    Args:
        layers: A whole model, then adapters, at least one.
        folder: That takes the model; emptied first.
        form: Of the weights below the uppermost adapter.
        wish: Format of the weights.
        examples: Rows to compare on, at least one.
        device: Where quantisation is computed, and the rows where the model fits there in float32.

    Raises:
        IntegrityError: A file of a layer is not what its manifest says.
        InvalidModel: The layers do not fit together, or a weight does not fit its format.
    """
    for layer in layers:
        layer.verify()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = MergeOptions(
        dtype=_DTYPES.get(wish.format), quantization=form.quantization, load_dtype=form.dtype, device=device
    )
    merge_layers(layers, folder, options)
    *below, adapter = layers
    base = load_base(
        below,
        dtype=form.dtype,
        quantization=Quantization(form.quantization) if form.quantization else None,
        device=device,
    )
    if not fits_in_float32(base.model.num_parameters(), device):
        base.model.to("cpu")
    # Before the adapter comes: PEFT would round it to the format of the layers that it finds.
    set_formats(base.model, ComputeType.FP32)
    model = load_adapter(base.model, adapter, "adapter")
    model.set_adapter("adapter")
    keep_four_bit_weights(model)
    choose_attention(model.get_base_model())
    rows = held_rows(examples, model.config.vocab_size)
    adapter_logits = list(logits_of(model, rows))
    del base, model
    whole = load_weights(folder, torch.float32)
    parameters = sum(parameter.numel() for parameter in whole.parameters())
    choose_attention(whole)
    whole.to(device if fits_in_float32(parameters, device) else "cpu")
    return MergedModel(divergence=compare(adapter_logits, whole, rows), model=whole, parameters=parameters)


def merge_facts(model: MergedModel, form: BaseForm, wish: Merge, method: str) -> MergeFacts:
    """Returns what a merged model says of itself.

    Args:
        model: Not refused.
        form: Of the weights below its adapter.
        wish: What was asked for.
        method: How the adapter was trained, as a word.
    """
    return MergeFacts(
        method=method,
        base_quantization=form.quantization or "",
        format=wish.format.value,
        figures=model.divergence.figures(),
    )


def release(model: torch.nn.Module) -> None:
    """Gives up the memory of a model that others still hold."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.new_empty(0)


def put_together(output: Path, merged: Path) -> None:
    """Makes the folder of an adapter that of the merged model, with the adapter's files in a folder of their own."""
    adapter = merged / ADAPTER_FOLDER
    adapter.mkdir()
    for path in sorted(output.iterdir()):
        path.rename(adapter / path.name)
    for path in sorted(merged.iterdir()):
        path.rename(output / path.name)
    merged.rmdir()
