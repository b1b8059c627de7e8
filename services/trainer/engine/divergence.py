"""How far a merged model is from the adapter that it was made of: both run over the same rows, in float32.

What is compared are the files as others load them: the adapter beside its base, and the merged model alone. Products
in float32 leave nothing but the weights to differ. One of the two models is in memory at a time, and of the first one
its logits: at most `COMPARED_LOGITS_BYTES`, 2,730 positions with a vocabulary of 49,152 words.

Suffixes: B lines, T positions of a row, P some of them, S positions that the loss counts, V vocabulary.
"""
# ruff: noqa: N803, N806, N815  (tensors carry their shape in upper case at the end of their names)

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from services.trainer.engine.corpus import Example
from tuneforge.checks import Check
from tuneforge.specs.memory import COMPARED_LOGITS_BYTES, COMPARED_ROW_TOKENS, COMPARED_TOKENS

_POSITIONS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRow:
    """A row, or the beginning of one, on which the two are compared."""

    tokens_T: NDArray[Any]
    labels_S: NDArray[Any]
    """Positions that the loss counts, each >= 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """What differs between an adapter on its base and the merged model."""

    positions: int
    """Positions compared, of prompts and completions."""
    rows: int
    """Rows that they are of."""
    agreement: float
    """Share of positions at which both have the same likeliest token, 0 to 1."""
    mean_kl: float
    """Mean over the positions of the Kullback-Leibler divergence of the merged model from the adapter, in nats."""
    max_kl: float
    """The largest one."""
    max_logit_difference: float
    """Largest difference of a logit."""
    adapter_loss: float | None
    """Mean loss of the adapter over the tokens that the rows teach, in nats a token; None without such a token."""
    merged_loss: float | None
    """The same of the merged model."""

    def figures(self) -> dict[str, float]:
        """Returns it as figures of the version."""
        figures = {
            "merge_top1_agreement": self.agreement,
            "merge_mean_kl": self.mean_kl,
            "merge_max_kl": self.max_kl,
            "merge_max_logit_difference": self.max_logit_difference,
        }
        if self.adapter_loss is not None and self.merged_loss is not None:
            figures["merge_loss_difference"] = self.merged_loss - self.adapter_loss
        return figures

    def check(self, least: float, rows_of: str) -> Check:
        """Holds it against the least agreement.

        Args:
            least: 0 to 1.
            rows_of: What the rows are for, `validation` or `training`.
        """
        missing = least - self.agreement
        told = f"Merged model and adapter have the same likeliest token at {self.agreement:.3%} of {self.positions}"
        verdict = f"{missing:.3%} less than" if missing > 0 else "at least"
        losses = {"adapter_loss": self.adapter_loss, "merged_loss": self.merged_loss}
        return Check(
            name="merge_divergence",
            passed=missing <= 0,
            score=self.agreement,
            threshold=least,
            message=f"{told} positions, {verdict} the {least:.3%} that are asked for.",
            details={
                "rows": f"{self.rows} for {rows_of}",
                "positions": str(self.positions),
                **{name.removeprefix("merge_"): f"{value:.6g}" for name, value in self.figures().items()},
                **{name: f"{value:.6g}" for name, value in losses.items() if value is not None},
            },
        )


def held_rows(examples: Sequence[Example], vocabulary: int) -> list[HeldRow]:
    """Takes rows from the first one on until their positions fill what may be kept; of a long one its beginning.

    Args:
        examples: At least one.
        vocabulary: Words that a model has a logit for.
    """
    room = min(COMPARED_TOKENS, COMPARED_LOGITS_BYTES // (4 * vocabulary))
    rows: list[HeldRow] = []
    for example in examples:
        tokens_T = example.tokens_T[: min(room, COMPARED_ROW_TOKENS)]
        if not len(tokens_T):
            break
        rows.append(HeldRow(tokens_T=tokens_T, labels_S=example.labels_S[example.labels_S < len(tokens_T)]))
        room -= len(tokens_T)
    return rows


def logits_of(model: Any, rows: Sequence[HeldRow]) -> Iterator[torch.Tensor]:
    """Yields a model's logits at every position of each row, shape (T, V), float32 on the CPU.

    Args:
        model: A causal language model in evaluation mode.
        rows: At least one.
    """
    device = next(model.parameters()).device
    for group in _groups(rows):
        with torch.no_grad():
            logits_BTV = model(input_ids=_padded(group).to(device), use_cache=False).logits
        for line, row in enumerate(group):
            yield logits_BTV[line, : len(row.tokens_T)].float().cpu()


def compare(adapter_TV: Iterable[torch.Tensor], merged: Any, rows: Sequence[HeldRow]) -> Divergence:
    """Runs the merged model over the rows and holds its logits against those of the adapter, row by row.

    Args:
        adapter_TV: What `logits_of` gave for the adapter.
        merged: The merged model.
        rows: The same.
    """
    sums = _Sums()
    for row, one_TV, other_TV in zip(rows, adapter_TV, logits_of(merged, rows), strict=True):
        sums.agreeing += int((one_TV.argmax(1) == other_TV.argmax(1)).sum())
        sums.max_logit = max(sums.max_logit, float((one_TV - other_TV).abs().max()))
        sums.positions += len(one_TV)
        for start in range(0, len(one_TV), _POSITIONS_AT_ONCE):
            part = slice(start, start + _POSITIONS_AT_ONCE)
            one_log_PV, other_log_PV = one_TV[part].log_softmax(1), other_TV[part].log_softmax(1)
            # Rounding may leave a sum that is nothing slightly below nothing.
            kl_P = (one_log_PV.exp() * (one_log_PV - other_log_PV)).sum(1).clamp(min=0)
            sums.kl, sums.max_kl = sums.kl + float(kl_P.sum()), max(sums.max_kl, float(kl_P.max()))
        labels_S = torch.as_tensor(row.labels_S, dtype=torch.long)
        targets_S = torch.as_tensor(row.tokens_T, dtype=torch.long)[labels_S]
        sums.adapter_loss += float(F.cross_entropy(one_TV[labels_S - 1], targets_S, reduction="sum"))
        sums.merged_loss += float(F.cross_entropy(other_TV[labels_S - 1], targets_S, reduction="sum"))
        sums.taught += len(labels_S)
    return Divergence(
        positions=sums.positions,
        rows=len(rows),
        agreement=sums.agreeing / sums.positions,
        mean_kl=sums.kl / sums.positions,
        max_kl=sums.max_kl,
        max_logit_difference=sums.max_logit,
        adapter_loss=sums.adapter_loss / sums.taught if sums.taught else None,
        merged_loss=sums.merged_loss / sums.taught if sums.taught else None,
    )


def fits_in_float32(parameters: int, device: torch.device) -> bool:
    """Tells whether a GPU has room for a model in float32; a quarter more than its weights. Always true of a CPU."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return parameters * 5 <= int(free)


@dataclass(slots=True)
class _Sums:
    """What a comparison adds up."""

    positions: int = 0
    agreeing: int = 0
    kl: float = 0.0
    max_kl: float = 0.0
    max_logit: float = 0.0
    taught: int = 0
    adapter_loss: float = 0.0
    merged_loss: float = 0.0


def _groups(rows: Sequence[HeldRow]) -> Iterator[list[HeldRow]]:
    """Yields rows that are computed together; with a row of its own, where it is long."""
    group: list[HeldRow] = []
    for row in rows:
        longest = max(len(each.tokens_T) for each in (*group, row))
        if group and longest * (len(group) + 1) > _POSITIONS_AT_ONCE:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _padded(rows: Sequence[HeldRow]) -> torch.Tensor:
    """Returns token ids, shape (B, T). Filling comes last, where a causal model's other positions do not see it."""
    longest = max(len(row.tokens_T) for row in rows)
    ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for line, row in enumerate(rows):
        ids_BT[line, : len(row.tokens_T)] = torch.as_tensor(row.tokens_T, dtype=torch.long)
    return ids_BT
