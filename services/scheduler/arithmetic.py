"""Counted bytes and operations of a spec on a base, remembered: many submits ask for the same sums.

The sums go over every weight of the base, which takes milliseconds for a large one. They are pure functions of the
spec's numbers and the base's shapes, so what was counted once holds for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields
from typing import Any

from tuneforge.specs.architecture import Architecture
from tuneforge.specs.memory import MemoryEstimate, estimate
from tuneforge.specs.spec import Resources, TrainingSpec
from tuneforge.specs.workload import flops_per_token

KEPT = 1024
"""Sums that are kept; those used longest ago go first."""

_NAMES_ONLY = {"base", "output_model", "resources"}
"""Fields of a spec that no sum looks at, or that are looked at one by one."""
_SPEC_FIELDS = tuple(field.name for field in fields(TrainingSpec) if field.name not in _NAMES_ONLY)
_RESOURCE_FIELDS = tuple(field.name for field in fields(Resources) if field.name not in {"node_labels", "lost_after_s"})

_sums: OrderedDict[Hashable, Any] = OrderedDict()


class _Same:
    """A thing as a key by its identity; it lives as long as the key."""

    __slots__ = ("thing",)

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


def memory(spec: TrainingSpec, architecture: Architecture, *, on_cpu: bool) -> MemoryEstimate:
    """Returns the peak memory by arithmetic; see `tuneforge.specs.memory.estimate`."""
    key = ("memory", _Same(architecture), on_cpu, *_numbers(spec))
    found: MemoryEstimate = _remembered(key, lambda: estimate(spec, architecture, on_cpu=on_cpu))
    return found


def operations(spec: TrainingSpec, architecture: Architecture, row_tokens: float) -> float:
    """Returns the operations of a token; see `tuneforge.specs.workload.flops_per_token`."""
    key = ("operations", _Same(architecture), row_tokens, *_numbers(spec))
    found: float = _remembered(key, lambda: flops_per_token(spec, architecture, row_tokens))
    return found


def _numbers(spec: TrainingSpec) -> tuple[Hashable, ...]:
    resources = spec.resources
    return (
        *(getattr(spec, name) for name in _SPEC_FIELDS),
        *(getattr(resources, name) for name in _RESOURCE_FIELDS),
    )


def _remembered(key: Hashable, count: Callable[[], Any]) -> Any:
    try:
        _sums.move_to_end(key)
    except KeyError:
        _sums[key] = count()
        if len(_sums) > KEPT:
            _sums.popitem(last=False)
    except TypeError:  # a field that cannot be a key
        return count()
    return _sums[key]
