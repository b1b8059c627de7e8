"""Which weights move: LoRA, QLoRA or all of them.

A model comes out with its number formats set: weights that move in float32, frozen matrices in the format of the
products (see `precision`), everything else in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.modelkit.adapters import attach_lora
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.layers import decoder_blocks, decoder_linears, linear_names
from services.modelkit.loading import LoadedModel, load_model, read_config, stop_ids, verified
from services.modelkit.reward import HEAD, with_reward_head
from services.trainer.engine import row_attention
from services.trainer.engine.precision import set_formats
from services.trainer.engine.recompute import apply_recompute
from services.trainer.engine.training_task import TrainingFault
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.errors import Reason
from tuneforge.specs.freezing import is_frozen
from tuneforge.specs.spec import ComputeType, FullMethod, LoraMethod, QloraMethod, RewardModelTask, TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedModel:
    """A model that is ready to be trained."""

    model: Any
    """The model; with adapters, PEFT's wrapping of it."""
    base: LoadedModel
    """What it was loaded from."""
    trainable_parameters: int
    """Weights that move."""
    total_parameters: int
    """All weights."""
    linear_parameters: int
    """Weights of the decoder blocks' linear layers, adapters left out."""


def prepare_model(layers: Sequence[LocalArtifact], spec: TrainingSpec, device: torch.device) -> PreparedModel:
    """Loads a base and makes the weights of a spec's method trainable.

    Args:
        layers: The base, then adapters that are merged into it.
        spec: Fully resolved.
        device: Where the model goes.

    Raises:
        IntegrityError: A file of a layer is not what its manifest says.
        TrainingFault: INVALID_MODEL, or INVALID_FIELD when the method does not fit the model.
    """
    quantization = spec.method.quantization if isinstance(spec.method, QloraMethod) else None
    try:
        dtype = load_format(layers, spec.compute, is_frozen=spec.lora is not None)
        with verified(layers):  # the last bytes are read while adapters are made
            base = load_model(layers, dtype, quantization, device)
            return _prepared(base, spec)
    except InvalidModel as error:
        raise TrainingFault(Reason.INVALID_MODEL, error.message, error.cure) from error


def _prepared(base: LoadedModel, spec: TrainingSpec) -> PreparedModel:
    model = base.model
    choose_attention(model)
    head = HEAD if isinstance(spec.task, RewardModelTask) else None
    if head:
        model = with_reward_head(model, spec.seed or 0, stop_ids(base.folder, load_tokenizer(base.folder)))
    total = sum(_size(parameter) for parameter in model.parameters())
    linear = sum(_size(layer.weight) for _, _, layer in decoder_linears(model))
    if isinstance(spec.method, FullMethod):
        freeze(model, spec.method.freeze_layers)
    elif spec.lora is not None:
        check_adapters(model, spec.lora)
        _check_magnitudes(base.layers, spec.lora)
        model = attach_lora(model, spec.lora, spec.seed or 0, head=head)
    set_formats(model, spec.compute)
    apply_recompute(base.model, spec.optimization.recompute)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    is_adapter = spec.lora is not None
    return PreparedModel(
        model=model,
        base=base,
        trainable_parameters=trainable,
        total_parameters=total + (trainable if is_adapter else 0),
        linear_parameters=linear,
    )


def check_adapters(model: Any, lora: LoraMethod) -> None:
    """Checks that a model has the layers that adapters are asked for, and that the rank is not above their sides.

    Raises:
        TrainingFault: INVALID_FIELD.
    """
    names = linear_names(model)
    unknown = sorted(set(lora.target_modules) - set(names))
    if unknown:
        raise TrainingFault(
            Reason.INVALID_FIELD,
            f"lora.target_modules names {', '.join(unknown)}, which the base model does not have.",
            f"Its linear layers are {', '.join(names)}.",
            metadata={"field": "lora.target_modules", "unknown": ",".join(unknown), "known": ",".join(names)},
        )
    targets = set(lora.target_modules or names)
    smallest, name = min((_smallest_side(layer), name) for _, name, layer in decoder_linears(model) if name in targets)
    if lora.rank > smallest:
        raise TrainingFault(
            Reason.INVALID_FIELD,
            f"lora.rank is {lora.rank}, and the smallest side of the layer {name} is {smallest}.",
            f"Choose a rank of at most {smallest}.",
            metadata={"field": "lora.rank", "value": str(lora.rank), "limit": str(smallest), "layer": name},
        )


def freeze(model: Any, freeze_layers: int) -> None:
    """Makes every weight of a model move but those of the embeddings and the lowest decoder blocks.

    Raises:
        TrainingFault: INVALID_FIELD, when nothing would be left to move.
    """
    blocks = len(decoder_blocks(model))
    if freeze_layers >= blocks:
        raise TrainingFault(
            Reason.INVALID_FIELD,
            f"full.freeze_layers is {freeze_layers}, and the base model has {blocks} decoder blocks.",
            f"Freeze at most {blocks - 1} of them.",
            metadata={"field": "full.freeze_layers", "value": str(freeze_layers), "limit": str(blocks - 1)},
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not is_frozen(name, freeze_layers))


def _check_magnitudes(layers: Sequence[LocalArtifact], lora: LoraMethod) -> None:
    """Refuses DoRA on an adapter: its magnitudes would be those of merged weights, which are not what is served."""
    if lora.use_dora and len(layers) > 1:
        raise TrainingFault(
            Reason.INVALID_FIELD,
            "lora.use_dora is set, and the base is an adapter: DoRA's magnitudes belong to a whole model's weights.",
            "Start from the whole model, or leave use_dora out.",
            metadata={"field": "lora.use_dora"},
        )


def choose_attention(model: Any) -> None:
    """Takes torch's fused attention, but for models whose scores are capped (Gemma 2): it would leave the cap out."""
    row_attention.register()
    model.set_attn_implementation("eager" if _caps_attention(model) else row_attention.NAME)


def can_share_beginnings(model: Any, max_tokens: int) -> bool:
    """Tells whether a model computes the same with a mask of ours (see `batches`) as with its own.

    Args:
        model: A causal language model of transformers, without PEFT.
        max_tokens: Tokens of the longest row.
    """
    window = getattr(model.config, "sliding_window", None)
    return not _caps_attention(model) and (window is None or max_tokens <= window)


def _caps_attention(model: Any) -> bool:
    return getattr(model.config, "attn_logit_softcapping", None) is not None


def load_format(layers: Sequence[LocalArtifact], compute: ComputeType, *, is_frozen: bool) -> torch.dtype:
    """Returns bfloat16 where no weight of the base loses a bit: stored so, frozen, for products, nothing merged in.

    Args:
        layers: The base, then adapters that are merged into it.
        compute: Format of the products, resolved.
        is_frozen: Whether the base's weights stay as they are.

    Raises:
        TrainingFault: INVALID_MODEL.
    """
    try:
        config = read_config(layers[0].folder)
    except InvalidModel as error:
        raise TrainingFault(Reason.INVALID_MODEL, error.message, error.cure) from error
    is_stored = config.get("dtype", config.get("torch_dtype")) == "bfloat16"
    is_kept = is_frozen and len(layers) == 1 and compute is ComputeType.BF16
    return torch.bfloat16 if is_stored and is_kept else torch.float32


def _smallest_side(layer: torch.nn.Module) -> int:
    if isinstance(layer, torch.nn.Linear):  # 4-bit layers too: their packed weight does not tell
        return int(min(layer.in_features, layer.out_features))
    rows, columns = layer.weight.shape
    return min(int(rows), int(columns))


def _size(parameter: Any) -> int:
    quantized = getattr(parameter, "quant_state", None)  # two 4-bit weights lie in one byte
    return int(quantized.shape.numel()) if quantized is not None else parameter.numel()
