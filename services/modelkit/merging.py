"""Adapters merged into the model below them, as a new model folder, tensor by tensor.

Each weight is read from the base, summed in float32 with what the adapters add to it, rounded once, and written: the
whole model is never in memory. A base that was kept in 4 bits in training is rounded to them and back first, as the
adapter on top learned beside these weights.

Suffixes: O outputs, I inputs, R rank.
"""
# ruff: noqa: N803, N806, N815  (tensors carry their shape in upper case at the end of their names)

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from services.modelkit.adapters import read_adapter
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.initialization import draw_model, seed_of
from services.modelkit.layers import decoder_linears
from services.modelkit.loading import TOKENIZER_FILES, read_config
from services.modelkit.quantization import nf4_rounded
from services.modelkit.weight_files import SHARD_BYTES, StoredTensor, stored_tensors, write_tensors

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """How layers are merged."""

    dtype: torch.dtype | None = None
    """Format of the merged weights; None: that in which each one of the base is stored."""
    quantization: Literal["nf4"] | None = None
    """How the linear layers of the decoder blocks were kept below the uppermost adapter in its training."""
    load_dtype: torch.dtype = torch.float32
    """Format in which they were before they were quantised."""
    device: str | torch.device = "cpu"
    """Where quantisation is computed, as in training."""
    shard_bytes: int = SHARD_BYTES
    """Most bytes of a file."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one adapter adds to one linear layer."""

    down_RI: torch.Tensor
    up_OR: torch.Tensor
    scale: float
    magnitude_O: torch.Tensor | None

    def added_to(self, weight_OI: torch.Tensor) -> torch.Tensor:
        """Returns the layer's weight with the adapter in it; float32, output side first."""
        moved_OI = weight_OI + self.scale * (self.up_OR @ self.down_RI)
        if self.magnitude_O is None:
            return moved_OI
        # DoRA (arXiv 2402.09353, eq. 5): the direction is that of the moved weight, the length is learned.
        return moved_OI * (self.magnitude_O / torch.linalg.norm(moved_OI, dim=1)).unsqueeze(1)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a model's configuration says of its linear layers."""

    linears: Mapping[str, bool]
    """Weight of a linear layer of the decoder blocks -> whether it is kept with its input side first (GPT-2)."""
    prefix: str
    """What files may leave out before a weight's name, e.g. `model.`."""


def merge_layers(layers: Sequence[LocalArtifact], folder: Path, options: MergeOptions) -> None:
    """Writes the model that a base and adapters are together: weights, configuration and the tokenizer's files.

    Args:
        layers: Verified; a whole model, then adapters in the order they were trained, at least one.
        folder: That takes the files.
        options: How.

    Raises:
        InvalidModel: An adapter does not fit, or a weight is too large for float16.
    """
    base, *adapters = layers
    config = read_config(base.folder)
    shape = _shape_of(config, base.folder)
    read = [_read_layers(adapter.folder, shape) for adapter in adapters]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".drawn-") as drawn:
        tensors = stored_tensors(_weights_folder(base.folder, config, Path(drawn)))
        names = _names(tensors, shape)
        missing = sorted({name for each in read for name in each} - set(names.values()))
        if missing:
            message = f"The adapter does not fit its base: the base has no weight {missing[0]}."
            raise InvalidModel(message, "Give the base it was trained on.")

        def numbers_of(tensor: StoredTensor) -> torch.Tensor:
            return _rounded(_merged(tensor, names[tensor.name], read, shape, options), tensor, options)

        targets = [(tensor, options.dtype or tensor.dtype) for tensor in tensors]
        write_tensors(folder, targets, numbers_of, options.shard_bytes)
    _write_config(base.folder, folder, options.dtype)
    for name in TOKENIZER_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)


def _merged(
    tensor: StoredTensor, name: str, adapters: Sequence[Mapping[str, _Layer]], shape: _Shape, options: MergeOptions
) -> torch.Tensor:
    """Returns one weight with all that the adapters add to it, in float32 where anything does."""
    weight = tensor.read()
    if name not in shape.linears:
        return weight
    is_transposed = shape.linears[name]
    *below, top = adapters
    numbers_OI = weight.T if is_transposed else weight
    for adapter in below:
        if name in adapter:
            numbers_OI = adapter[name].added_to(numbers_OI.float())
    if options.quantization == "nf4":
        numbers_OI = nf4_rounded(numbers_OI.to(options.load_dtype).contiguous(), options.device).cpu()
    if name in top:
        numbers_OI = top[name].added_to(numbers_OI.float())
    return numbers_OI.T if is_transposed else numbers_OI


def _rounded(numbers: torch.Tensor, tensor: StoredTensor, options: MergeOptions) -> torch.Tensor:
    rounded = numbers.to(options.dtype or tensor.dtype)
    if not bool(torch.isfinite(rounded).all()):
        largest = float(numbers.abs().max())
        raise InvalidModel(
            f"{tensor.name} has a number of the size {largest:.3g}, which {rounded.dtype} does not hold.",
            "Merge in bfloat16 or float32.",
        )
    return rounded


def _read_layers(folder: Path, shape: _Shape) -> dict[str, _Layer]:
    """Returns what an adapter adds, by the name of the weight that it is added to."""
    config, weights = read_adapter(folder, is_transposed=any(shape.linears.values()))
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in weights.items():
        module, _, part = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        parts.setdefault(module, {})[part] = tensor.float()
    layers = {}
    for module, found in parts.items():
        name = f"{module}.weight"
        if name not in shape.linears or not {"lora_A", "lora_B"} <= set(found):
            message = f"The adapter does not fit its base: {module} is no linear layer with two factors."
            raise InvalidModel(message, "Give the base it was trained on.")
        down_RI, up_OR = found["lora_A"], found["lora_B"]
        scale = _scale(config, module, rank=down_RI.shape[0])
        layers[name] = _Layer(down_RI, up_OR, scale, found.get("lora_magnitude_vector"))
    return layers


def _scale(config: LoraConfig, module: str, *, rank: int) -> float:
    alphas = config.alpha_pattern
    alpha = alphas.get(get_pattern_key(alphas.keys(), module), config.lora_alpha)
    return float(alpha) / (math.sqrt(rank) if config.use_rslora else rank)


def _shape_of(config: Mapping[str, Any], folder: Path) -> _Shape:
    """Builds the model without weights and asks it for its layers."""
    model_class = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        model = model_class(model_class.config_class.from_pretrained(folder, local_files_only=True))
    names = {id(module): name for name, module in model.named_modules()}
    linears = {
        f"{names[id(layer)]}.weight": not isinstance(layer, torch.nn.Linear) for _, _, layer in decoder_linears(model)
    }
    return _Shape(linears, f"{model.base_model_prefix}.")


def _names(tensors: Sequence[StoredTensor], shape: _Shape) -> dict[str, str]:
    """Returns name in the files -> name in the model, for files that leave the model's prefix out too."""
    return {
        tensor.name: shape.prefix + tensor.name
        if tensor.name not in shape.linears and shape.prefix + tensor.name in shape.linears
        else tensor.name
        for tensor in tensors
    }


def _weights_folder(folder: Path, config: Mapping[str, Any], drawn: Path) -> Path:
    """Returns the folder with a base's weights; those of a configuration alone are drawn and written first."""
    seed = seed_of(folder)
    if seed is None:
        return folder
    draw_model(getattr(transformers, config["architectures"][0]), folder, seed).save_pretrained(drawn)
    return drawn


def _write_config(base: Path, folder: Path, dtype: torch.dtype | None) -> None:
    content = json.loads((base / "config.json").read_text(encoding="utf-8"))
    is_drawn = seed_of(base) is not None
    if dtype is not None or is_drawn:
        content.pop("torch_dtype", None)
        content["dtype"] = str(dtype or torch.float32).removeprefix("torch.")
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
