"""Attention over packed rows that computes each row alone: its cost is the sum of the rows' squares, not their square.

On a GPU the kernel for rows of different lengths (`torch.nn.attention.varlen`) is used; elsewhere each row is a call of
the fused attention. Where the rows begin is worked out once a micro-batch, and no mask is built.

Suffixes: B lines, H heads, T positions, D width of a head, R rows.
"""
# ruff: noqa: N803, N806  (tensors carry their shape in upper case at the end of their names)

import inspect
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from services.trainer.engine.batches import MicroBatch

NAME = "tuneforge_rows"
"""Name of the implementation in transformers."""
_BOUNDS = "cu_seq_lens_q"
_LONGEST = "max_length_q"
_HALF = (torch.bfloat16, torch.float16)
_TAKES = frozenset(inspect.signature(varlen_attn).parameters)
"""Options of the kernel, which differ between releases of torch; looked up here, outside of what may be compiled."""


def register() -> None:
    """Makes the implementation known to transformers; again does no harm."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)


def attention_arguments(decoder: Any, batch: MicroBatch) -> dict[str, Any]:
    """Returns what a decoder has to be told of where the rows of a micro-batch lie.

    Args:
        decoder: Of a model of transformers.
        batch: On its device.
    """
    positions_BT = batch.position_ids_BT
    is_packed = positions_BT is not None and batch.rows_T is None
    if not is_packed or decoder.config._attn_implementation != NAME:  # noqa: SLF001 - transformers' own name for it
        return {"attention_mask": batch.attention_mask()}
    assert positions_BT is not None
    longest, window = int(positions_BT.max()) + 1, getattr(decoder.config, "sliding_window", None)
    if window is not None and longest > window:  # transformers builds the mask, with the window in it
        return {"attention_mask": None}
    starts_R = (positions_BT[0] == 0).nonzero().flatten()
    bounds_R = torch.cat([starts_R, starts_R.new_tensor([positions_BT.shape[1]])]).to(torch.int32)
    return {
        # One of four dimensions is passed on as it is; with None, transformers would build the mask of the packed line.
        "attention_mask": torch.ones((1, 1, 1, 1), dtype=torch.bool, device=positions_BT.device),
        _BOUNDS: bounds_R,
        _LONGEST: longest,
    }


def attend(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Computes attention as transformers asks for it: (B, H, T, D) in, (B, T, H, D) out."""
    bounds_R = kwargs.get(_BOUNDS)
    if bounds_R is None:
        output, _ = sdpa_attention_forward(
            module, query_BHTD, key_BHTD, value_BHTD, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
        return output, None
    dtype = products_dtype(query_BHTD)
    if query_BHTD.is_cuda and dtype in _HALF and not dropout:
        # Rotating puts queries and keys into the float32 of the residual stream, which the kernel does not take.
        halves = (each.to(dtype) for each in (query_BHTD, key_BHTD, value_BHTD))
        return packed_attention(*halves, bounds_R=bounds_R, longest=kwargs[_LONGEST], scaling=scaling), None
    groups = query_BHTD.shape[1] // key_BHTD.shape[1]
    lengths = bounds_R.diff().tolist()
    rows = zip(*(each.split(lengths, dim=2) for each in (query_BHTD, key_BHTD, value_BHTD)), strict=True)
    outputs = [
        torch.nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=groups > 1
        )
        for q, k, v in rows
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def products_dtype(query: torch.Tensor) -> torch.dtype:
    """Returns the number format that attention is computed in: autocast's where that is on, else the query's own."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def packed_attention(
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    *,
    bounds_R: torch.Tensor,
    longest: int,
    scaling: float | None,
) -> torch.Tensor:
    """Calls the kernel for rows of different lengths. Unproven: no GPU has run it yet.

    Args:
        query_BHTD: One line, in bfloat16 or float16.
        key_BHTD: Of perhaps fewer heads.
        value_BHTD: As many.
        bounds_R: Where each row begins, and where the last one ends; int32.
        longest: Tokens of the longest row.
        scaling: Of the scores; None: one over the root of the width.

    Returns:
        Shape (B, T, H, D).
    """
    # Releases of torch tell a causal mask in two ways, and not all take grouped heads.
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in _TAKES else {"is_causal": True}
    groups = query_BHTD.shape[1] // key_BHTD.shape[1]
    query, key, value = (each[0].transpose(0, 1) for each in (query_BHTD, key_BHTD, value_BHTD))
    if groups > 1 and "enable_gqa" in _TAKES:
        options["enable_gqa"] = True
    elif groups > 1:
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    if "scale" in _TAKES:
        options["scale"] = scaling
    elif scaling is not None:
        query = query * (scaling * query.shape[-1] ** 0.5)
    rows = (each.contiguous() for each in (query, key, value))
    output: torch.Tensor = varlen_attn(*rows, bounds_R, bounds_R, longest, longest, **options)
    return output[None]
