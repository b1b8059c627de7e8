"""The space that a sweep searches: its points, how many there are, their identity, and a smaller space around some."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from services.scheduler.sweeps.plan import Choices, Condition, Parameter, Range, Value

Point = Mapping[str, Value]
"""A value for each parameter that is there, by field."""

MARGIN = 0.25
"""By how much of the whole range a narrowed one reaches beyond the values it lies around: a best value at its end says
that a better one may lie behind."""
_ROUNDING = 1e-9
_COUNTED_MAX = 2**53
"""A space with so many points has no end for anybody who searches it."""
_WAYS_MAX = 10_000
"""Sets of conditions that may hold together; a space with more of them is not counted."""
_Held = frozenset[int]
"""Numbers of conditions that hold."""
_NOTHING: _Held = frozenset()


def is_active(parameter: Parameter, point: Point) -> bool:
    """Returns whether a parameter is there beside the values chosen so far."""
    return all(_holds(condition, point) for condition in parameter.when)


def _holds(condition: Condition, point: Point) -> bool:
    return condition.field in point and any(same(point[condition.field], each) for each in condition.values)


def same(one: Value, other: Value) -> bool:
    """Returns whether two values are the same; True and 1 are not."""
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def in_order(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Returns the parameters so that each comes after those that its conditions name, else as they are given.

    Raises:
        ValueError: Some wait for each other; the message has their fields.
    """
    left, sorted_ones, known = list(parameters), [], set[str]()
    every = {parameter.field for parameter in parameters}
    while left:
        ready = [each for each in left if all(c.field in known or c.field not in every for c in each.when)]
        if not ready:
            raise ValueError(", ".join(each.field for each in left))
        sorted_ones.append(ready[0])
        known.add(ready[0].field)
        left.remove(ready[0])
    return sorted_ones


def values_of(values: Choices | Range) -> Sequence[Value] | None:
    """Returns all values, ascending where they are numbers of a range; None where nobody comes to their end."""
    if isinstance(values, Choices):
        return values.values
    step = values.step or (1.0 if values.is_integer else 0.0)
    if values.low == values.high:
        return (number(values, values.low),)
    if not step:
        return None
    steps = (values.high - values.low) / step
    if steps >= _COUNTED_MAX:
        return None
    return _Stepped(values, step, math.floor(steps + _ROUNDING) + 1)


class _Stepped(Sequence[Value]):
    """The values of a range with steps, made when they are asked for."""

    def __init__(self, values: Range, step: float, count: int) -> None:
        self._values, self._step, self._count = values, step, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice) -> Value:  # type: ignore[override]
        if isinstance(index, slice) or not 0 <= index < self._count:
            raise IndexError(index)
        return number(self._values, self._values.low + index * self._step)


def number(values: Range, value: float) -> Value:
    """Returns a number as its field has it."""
    return round(value) if values.is_integer else float(value)


def count(parameters: Sequence[Parameter]) -> int | None:
    """Returns how many points a space has; None where there is no end of them, or too many to count.

    Values that the conditions do not tell apart are counted together, and a condition is forgotten once nothing waits
    for it, so that the time does not grow with the points.
    """
    numbers = {each: index for index, each in enumerate({c: None for each in parameters for c in each.when})}
    waiting = in_order(parameters)
    ways: dict[_Held, int] = {_NOTHING: 1}
    while waiting:
        parameter = _next_counted(waiting, {each.field for each in numbers})
        waiting.remove(parameter)
        needed = frozenset(numbers[each] for each in parameter.when)
        asked = [(index, each) for each, index in numbers.items() if each.field == parameter.field]
        kinds = _kinds(parameter.values, asked)
        left = frozenset(numbers[each] for other in waiting for each in other.when)
        grown: dict[_Held, int] = {}
        for held, so_many in ways.items():
            is_there = needed <= held
            if is_there and kinds is None:
                return None
            for kind, values in (kinds or {}).items() if is_there else ((_NOTHING, 1),):
                key = (held | kind) & left
                grown[key] = grown.get(key, 0) + so_many * values
        ways = grown
        if len(ways) > _WAYS_MAX:
            return None
    total = sum(ways.values())
    return total if total < _COUNTED_MAX else None


def _next_counted(waiting: Sequence[Parameter], named: Collection[str]) -> Parameter:
    """Returns one that waits for none of the others: first those that no condition names, for they leave nothing."""
    left = {each.field for each in waiting}
    ready = [each for each in waiting if left.isdisjoint(c.field for c in each.when)]
    return min(ready, key=lambda each: (each.field in named, not each.when))


def _kinds(values: Choices | Range, conditions: Sequence[tuple[int, Condition]]) -> dict[_Held, int] | None:
    """Returns how many values there are of each kind: the conditions that hold beside them; None: no end of them."""
    every = values_of(values)
    if every is None:
        return None
    if not conditions or not isinstance(values, Choices):
        return {_NOTHING: len(every)}
    wanted = [(index, {(isinstance(value, bool), value) for value in each.values}) for index, each in conditions]
    kinds: dict[_Held, int] = {}
    for value in values.values:
        kind = frozenset(index for index, allowed in wanted if (isinstance(value, bool), value) in allowed)
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def points(parameters: Sequence[Parameter]) -> Iterator[Point]:
    """Yields every point of a space without ranges that have no end, the last parameter changing fastest."""
    return _points(in_order(parameters), 0, {})


def _points(ordered: Sequence[Parameter], index: int, chosen: dict[str, Value]) -> Iterator[Point]:
    if index == len(ordered):
        yield dict(chosen)
        return
    parameter = ordered[index]
    if not is_active(parameter, chosen):
        yield from _points(ordered, index + 1, chosen)
        return
    values = values_of(parameter.values)
    if values is None:
        raise ValueError(f"{parameter.field} has no end of values")
    for value in itertools.islice(values, len(values)):
        yield from _points(ordered, index + 1, {**chosen, parameter.field: value})


def contains(values: Choices | Range, value: Value) -> bool:
    """Returns whether a value is one that may be chosen."""
    if isinstance(values, Choices):
        return any(same(each, value) for each in values.values)
    if isinstance(value, bool | str | tuple) or not values.low <= value <= values.high:
        return False
    step = values.step or (1.0 if values.is_integer else 0.0)
    steps = (value - values.low) / step if step else 0.0
    return abs(steps - round(steps)) < 1e-6


def digest_of(point: Point, train_fraction: float) -> str:
    """Returns the identity of a run: SHA-256 over its parameters and its share of the data."""
    content = {"parameters": dict(point), "train_fraction": train_fraction or 1.0}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def narrowed(parameters: Sequence[Parameter], best: Sequence[Point]) -> tuple[Parameter, ...]:
    """Returns the space around some points: of choices those that they have, of ranges what they span and a margin.

    A parameter that none of the points has stays as it is.
    """
    return tuple(
        Parameter(field=each.field, values=_around(each.values, found), when=each.when)
        if (found := [point[each.field] for point in best if each.field in point])
        else each
        for each in parameters
    )


def _around(values: Choices | Range, found: Sequence[Value]) -> Choices | Range:
    if isinstance(values, Choices):
        return Choices(values=tuple(each for each in values.values if any(same(each, one) for one in found)))
    numbers = [float(each) for each in found if not isinstance(each, str | tuple)]
    if values.is_log:
        margin = (values.high / values.low) ** MARGIN
        low, high = min(numbers) / margin, max(numbers) * margin
    else:
        width = (values.high - values.low) * MARGIN
        low, high = min(numbers) - width, max(numbers) + width
    low, high = max(low, values.low), min(high, values.high)
    step = values.step or (1.0 if values.is_integer else 0.0)
    if step:  # the values stay those of the whole range
        low = values.low + math.ceil((low - values.low) / step - _ROUNDING) * step
        high = values.low + math.floor((high - values.low) / step + _ROUNDING) * step
    return Range(low=low, high=high, step=values.step, is_log=values.is_log, is_integer=values.is_integer)
