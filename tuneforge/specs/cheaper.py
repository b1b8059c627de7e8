"""Single changes of a spec that need less memory, those first that change the result least."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from tuneforge.specs.spec import ComputeType, FullMethod, LoraMethod, QloraMethod, TrainingSpec

Need = TypeVar("Need")

SHORTEST_TOKENS = 64
"""Rows are not advised to be cut shorter than this."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a spec."""

    words: str
    """What to set, for a person."""
    spec: TrainingSpec
    """The spec with the change."""


def cheaper(spec: TrainingSpec) -> Iterator[Change]:
    """Yields single changes that need less memory."""
    if spec.optimization.rows_per_micro_batch != 1:
        fewer = replace(spec.optimization, rows_per_micro_batch=1)
        yield Change("`optimization.rows_per_micro_batch` 1", replace(spec, optimization=fewer))
    if spec.compute is not ComputeType.BF16:
        yield Change("`precision.compute` BF16", replace(spec, compute=ComputeType.BF16))
    tokens = spec.data.max_tokens // 2
    while tokens >= SHORTEST_TOKENS:
        yield Change(f"`data.max_tokens` {tokens}", replace(spec, data=replace(spec.data, max_tokens=tokens)))
        tokens //= 2
    if isinstance(spec.method, FullMethod):
        yield Change("`lora` instead of `full`", replace(spec, method=LoraMethod()))
    if not isinstance(spec.method, QloraMethod):
        lora = spec.method if isinstance(spec.method, LoraMethod) else LoraMethod()
        yield Change("`qlora`", replace(spec, method=QloraMethod(lora=lora)))


def cheapest_fit(
    spec: TrainingSpec,
    need_of: Callable[[TrainingSpec], Need],
    fits: Callable[[TrainingSpec, Need], bool],
) -> tuple[Change, Need] | None:
    """Returns the first change after which a spec fits, with what it needs then; None when none is enough.

    Args:
        spec: With defaults.
        need_of: Gives what a spec needs on its base.
        fits: Tells whether a spec with this need has room.
    """
    for change in cheaper(spec):
        less = need_of(change.spec)
        if fits(change.spec, less):
            return change, less
    return None
