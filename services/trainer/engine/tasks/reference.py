"""What the reference of preference tuning says of the answers: the model as it was when the run began.

Beside adapters it is the model with its adapters switched off, at the price of a forward pass and no memory. When all
weights move it would be a second copy of them: its log-probabilities are computed once before the first step instead,
and kept on disk in blocks under a digest of all that they depend on, so that a later attempt finds them, and
one that was ended goes on behind the last block.

Suffixes: 2P texts of P pairs.
"""
# ruff: noqa: N806  (tensors carry their shape in upper case at the end of their names)

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.corpus import Example
from services.trainer.engine.evaluation import judging
from services.trainer.engine.precision import autocast
from services.trainer.engine.tasks.pairs import PairPart, log_probabilities, pair_parts
from tuneforge.specs.spec import ComputeType

BLOCK_ROWS = 256
"""Rows of a block: an attempt that is ended while the reference is computed loses at most so many."""
_VALUES, _DIGEST = "log_probabilities", "sha256"


class Reference(Protocol):
    """Tells the log-probabilities of answers before anything was learned."""

    def log_probabilities(self, model: Any, part: PairPart, /) -> torch.Tensor:
        """Returns one of each text, float32 of shape (2P,), in nats, without a gradient."""


class AdaptersOff:
    """The model with its adapters switched off."""

    def log_probabilities(self, model: Any, part: PairPart) -> torch.Tensor:
        """Computes them."""
        with judging(model), model.disable_adapter():
            return log_probabilities(model, part)


@dataclass(frozen=True, slots=True)
class KeptReference:
    """Log-probabilities that were computed before the first step."""

    of_row: Mapping[str, tuple[float, float]]
    """Of the chosen and the rejected answer, by the id of the row."""

    def log_probabilities(self, _model: Any, part: PairPart) -> torch.Tensor:
        """Looks them up."""
        device = part.texts.ends_R.device
        return torch.tensor([value for row in part.ids for value in self.of_row[row]], device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRun:
    """How a reference is computed, and where it is kept."""

    folder: Path
    """Where blocks are kept; made when missing."""
    inputs: Mapping[str, Any]
    """All that the numbers depend on beside the rows of a block: JSON values."""
    limits: BatchLimits
    compute: ComputeType
    device: torch.device
    check_stop: Callable[[], None]
    """Called before each block; may raise to end it."""


def computed_reference(model: Any, examples: Sequence[Example], run: ReferenceRun) -> KeptReference:
    """Returns the log-probabilities that a model gives to the answers of some pairs, from disk where they are there.

    Args:
        model: With the weights that the run begins with.
        examples: Pairs; equal ids are equal rows.
        run: How and where.
    """
    of_row: dict[str, tuple[float, float]] = {}
    run.folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(examples), BLOCK_ROWS):
        run.check_stop()
        block = examples[start : start + BLOCK_ROWS]
        path = run.folder / f"reference-{_digest(block, run.inputs)}.safetensors"
        values = _read(path, 2 * len(block))
        if values is None:
            values = _compute(model, block, run)
            _write(path, values)
        pairs = values.view(-1, 2).tolist()
        of_row |= {example.id: (chosen, rejected) for example, (chosen, rejected) in zip(block, pairs, strict=True)}
    return KeptReference(of_row)


def _compute(model: Any, block: Sequence[Example], run: ReferenceRun) -> torch.Tensor:
    found: dict[str, torch.Tensor] = {}
    with judging(model), autocast(run.compute, run.device):
        for part in pair_parts(block, run.limits):
            values_2P = log_probabilities(model, part.to(run.device)).cpu()
            found |= dict(zip(part.ids, values_2P.view(-1, 2), strict=True))
    return torch.cat([found[example.id] for example in block])


def _digest(block: Sequence[Example], inputs: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for example in block:
        digest.update(f"{example.id} {len(example.tokens_T)} {example.boundary}\n".encode())
        digest.update(example.tokens_T.tobytes() + example.labels_S.tobytes())
    return digest.hexdigest()


def _read(path: Path, count: int) -> torch.Tensor | None:
    """Returns a block, None where it is missing or damaged: it is then computed anew."""
    try:
        with safe_open(path, "pt") as file:
            values, written = file.get_tensor(_VALUES), (file.metadata() or {}).get(_DIGEST)
    except (OSError, SafetensorError):
        return None
    is_whole = values.shape == (count,) and values.dtype is torch.float32 and written == _sha256(values)
    return values if is_whole else None


def _write(path: Path, values: torch.Tensor) -> None:
    """Writes a block whole or not at all. Not synced: what a power cut takes is computed anew."""
    writing = path.with_suffix(f".{os.getpid()}.writing")  # processes of one gang may share the folder
    save_file({_VALUES: values.contiguous()}, writing, metadata={_DIGEST: _sha256(values)})
    writing.replace(path)


def _sha256(values: torch.Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()
