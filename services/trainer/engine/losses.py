"""Losses as a sum and a count, so that a step's gradient is the mean over its tokens however it is cut into parts.

The vocabulary is the widest matrix of a small model, so the head is computed at supervised positions only: the decoder
runs without its head, the outputs that predict a supervised token are gathered, and the head sees nothing else.

Suffixes: B lines, T positions, S supervised tokens, D model width, V vocabulary.
"""
# ruff: noqa: N803, N806, N812  (tensors carry their shape in upper case at the end of their names)

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from services.trainer.engine.batches import MicroBatch

CHUNK_TOKENS = 1024
"""Supervised tokens whose logits are held at once: 12 bytes for each and each word of the vocabulary (0.6 GB with
49,152 words). More are computed in chunks, whose logits are computed again in the backward pass."""


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss that is not divided yet."""

    sum: torch.Tensor
    """Sum over the counted tokens in nats; a float32 scalar with a gradient."""
    count: int
    """Tokens that it counts, >= 1."""


def supervised_loss(model: Any, batch: MicroBatch) -> LossSum:
    """Returns the cross-entropy of the supervised tokens of a micro-batch.

    Args:
        model: A causal language model of transformers, perhaps with adapters of PEFT in it.
        batch: On the model's device.
    """
    causal_lm = unwrapped(model)
    output = causal_lm.get_decoder()(
        input_ids=batch.input_ids_BT,
        position_ids=batch.position_ids_BT,
        attention_mask=batch.attention_mask(),
        use_cache=False,  # with a cache, packed rows would not be kept apart
    )
    # index_select, because its backward pass adds in a fixed order on a CPU.
    hidden_SD = output.last_hidden_state.flatten(0, 1).index_select(0, batch.predictors_S)
    count = len(batch.targets_S)
    if count <= CHUNK_TOKENS:
        return LossSum(_head_loss(causal_lm, hidden_SD, batch.targets_S), count)
    chunks = zip(hidden_SD.split(CHUNK_TOKENS), batch.targets_S.split(CHUNK_TOKENS), strict=True)
    losses = [
        checkpoint(_head_loss, causal_lm, hidden_CD, targets_C, use_reentrant=False, preserve_rng_state=False)
        for hidden_CD, targets_C in chunks
    ]
    return LossSum(torch.stack(losses).sum(), count)


def unwrapped(model: Any) -> Any:
    """Returns the transformers model inside a PEFT model; its layers keep their adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _head_loss(causal_lm: Any, hidden_SD: torch.Tensor, targets_S: torch.Tensor) -> torch.Tensor:
    logits_SV = causal_lm.get_output_embeddings()(hidden_SD)
    if cap := getattr(causal_lm.config, "final_logit_softcapping", None):  # Gemma 2, arXiv 2408.00118, section 2
        logits_SV = torch.tanh(logits_SV / cap) * cap
    return F.cross_entropy(logits_SV.float(), targets_S, reduction="sum")
