"""Activation recompute: what of a block's forward pass is not kept for its backward pass but computed again.

The second computation is the first one again, random numbers of dropout included, so no policy changes a number.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from services.modelkit.layers import decoder_blocks
from services.modelkit.loading import read_config
from tuneforge.specs.architecture import Architecture, TensorShape
from tuneforge.specs.memory import estimate
from tuneforge.specs.spec import ActivationRecompute, TrainingSpec

_SHARE_OF_DEVICE = 0.92
"""Share of a device's memory that an estimate may take: the allocator keeps some for itself."""
_WIDE = 256
"""Inner side of a matrix product from which on its output is worth keeping; the low-rank factors lie below it."""
_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention", "_cudnn_attention", "_varlen_attn")
_PRODUCTS = {"mm": 0, "addmm": 1, "bmm": 0, "linear": 0}
"""Matrix products, and which argument has the inner side as its last one."""


def resolve_recompute(
    spec: TrainingSpec, folder: Path, device: torch.device, micro_batch_tokens: int
) -> ActivationRecompute:
    """Returns the policy of a run: AUTO is the fastest one whose estimated peak fits a GPU, and NONE on a CPU.

    Args:
        spec: With its defaults, its number format resolved.
        folder: Of the base.
        device: Where the model will be.
        micro_batch_tokens: Tokens computed at once.
    """
    asked = spec.optimization.recompute
    if asked is not ActivationRecompute.AUTO:
        return asked
    if device.type != "cuda":
        return ActivationRecompute.NONE
    room = torch.cuda.get_device_properties(device).total_memory * _SHARE_OF_DEVICE
    return cheapest_that_fits(spec, architecture_of(folder), micro_batch_tokens, room)


def cheapest_that_fits(
    spec: TrainingSpec, architecture: Architecture, micro_batch_tokens: int, room_bytes: float
) -> ActivationRecompute:
    """Returns the policy with the least computation whose estimated peak is within some bytes; FULL when none is."""
    for policy in (ActivationRecompute.NONE, ActivationRecompute.SELECTIVE):
        if estimate(shaped(spec, micro_batch_tokens, policy), architecture).total_bytes <= room_bytes:
            return policy
    return ActivationRecompute.FULL


def shaped(spec: TrainingSpec, micro_batch_tokens: int, policy: ActivationRecompute) -> TrainingSpec:
    """Returns a spec for the memory estimate: so many tokens at once, under a policy."""
    return replace(
        spec,
        data=replace(spec.data, max_tokens=micro_batch_tokens),
        optimization=replace(spec.optimization, rows_per_micro_batch=1, recompute=policy),
    )


def apply_recompute(model: Any, policy: ActivationRecompute) -> None:
    """Makes the decoder blocks of a model keep only what a policy keeps; only while the model is being trained."""
    if policy in (ActivationRecompute.AUTO, ActivationRecompute.NONE):
        return
    contexts = {}
    if policy is ActivationRecompute.SELECTIVE:
        contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_wide_products)
    for block in decoder_blocks(model):
        block.forward = partial(_recomputed, block, block.forward, contexts)


def _recomputed(block: torch.nn.Module, forward: Any, contexts: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=True, **contexts, **kwargs)


def _keep_wide_products(_context: Any, operation: Any, *args: Any, **_kwargs: Any) -> CheckpointPolicy:
    name = operation.overloadpacket.__name__
    if name.startswith(_ATTENTION):
        return CheckpointPolicy.MUST_SAVE
    place = _PRODUCTS.get(name)
    if place is not None and args[place].shape[-1] >= _WIDE:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def architecture_of(folder: Path) -> Architecture:
    """Returns the shapes of a model by its configuration alone."""
    config = read_config(folder)
    name = config["architectures"][0]
    with torch.device("meta"):
        model = getattr(transformers, name)(transformers.AutoConfig.from_pretrained(folder, local_files_only=True))
    shapes = [
        TensorShape(name=weight, shape=tuple(tensor.shape), dtype="F32") for weight, tensor in model.named_parameters()
    ]
    return Architecture(class_name=name, config=config, tensors=tuple(shapes))
