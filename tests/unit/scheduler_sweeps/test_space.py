"""Points of a space: their number, their identity, and a smaller space around some."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.sweeps.plan import Choices, Condition, Parameter, Range
from services.scheduler.sweeps.space import contains, count, digest_of, in_order, is_active, narrowed, points, values_of
from tests.unit.scheduler_sweeps.spaces import choices, ranged

numbers = st.integers(0, 6)
finite_values = st.one_of(
    st.lists(numbers, min_size=1, max_size=4, unique=True).map(lambda found: Choices(values=tuple(found))),
    st.tuples(numbers, numbers).map(lambda ends: Range(low=min(ends), high=max(ends), is_integer=True)),
    st.tuples(numbers, numbers).map(lambda ends: Range(low=min(ends), high=max(ends) + 0.25, step=0.5)),
)


@st.composite
def spaces(draw: st.DrawFn) -> tuple[Parameter, ...]:
    """Draws up to four parameters with an end; later ones may depend on earlier choices."""
    found: list[Parameter] = []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        parents = [each for each in found if isinstance(each.values, Choices)]
        when: tuple[Condition, ...] = ()
        depends = draw(st.booleans())
        if parents and depends:
            parent = draw(st.sampled_from(parents))
            assert isinstance(parent.values, Choices)
            when = (Condition(field=parent.field, values=parent.values.values[:1]),)
        found.append(Parameter(field=name, values=draw(finite_values), when=when))
    order = draw(st.permutations(range(len(found))))
    return tuple(found[index] for index in order)


@given(spaces())
def test_every_point_is_counted_once_and_lies_in_the_space(space: tuple[Parameter, ...]) -> None:
    """The count needs no walk over the points and says the same; a point has what its conditions let be there."""
    found = list(points(space))
    assert len(found) == count(space) == len({digest_of(point, 0.0) for point in found})
    for point in found:
        chosen: dict[str, object] = {}
        for parameter in in_order(space):
            assert (parameter.field in point) is is_active(parameter, chosen)  # type: ignore[arg-type]
            if parameter.field in point:
                assert contains(parameter.values, point[parameter.field])
                chosen[parameter.field] = point[parameter.field]


@given(spaces(), st.data())
def test_a_narrowed_space_lies_in_the_whole_one_around_its_points(
    space: tuple[Parameter, ...], data: st.DataObject
) -> None:
    """Its values are values of the whole space, and those of the points are among them."""
    every = list(points(space))
    best = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=3))
    for whole, small in zip(space, narrowed(space, best), strict=True):
        values = values_of(small.values)
        assert values is not None
        assert all(contains(whole.values, each) for each in list(values))
        assert all(contains(small.values, point[whole.field]) for point in best if whole.field in point)


def test_a_log_range_is_narrowed_by_ratios() -> None:
    """A quarter of its width in ratios on both sides, and never beyond its ends."""
    rate = ranged("rate", 1e-5, 1e-1, is_log=True)
    (found,) = narrowed([rate], [{"rate": 1e-3}, {"rate": 2e-2}])
    assert isinstance(found.values, Range)
    assert abs(found.values.low - 1e-4) < 1e-12
    assert found.values.high == 1e-1


def test_a_range_without_a_step_has_no_end() -> None:
    """But whole numbers and a range of one number have."""
    assert count([ranged("a", 0.0, 1.0)]) is None
    assert count([ranged("a", 0, 9, is_integer=True), ranged("b", 0.5, 0.5)]) == 10
    hidden = Parameter(field="b", values=Range(low=0, high=1), when=(Condition(field="a", values=(2,)),))
    assert count([choices("a", 1, 2), hidden]) is None


def test_a_large_space_is_counted_without_a_walk_over_it() -> None:
    """Thousands of values that conditions name, many conditions at once, and more points than numbers hold."""
    fields = [choices(name, *range(1000)) for name in "abcd"]
    when = tuple(Condition(field=name, values=tuple(range(500))) for name in "abcd")
    assert count([*fields, choices("e", 1, 2, when=when)]) == 1000**4 + 500**4
    switches = [choices(f"s{index}", 0, 1) for index in range(40)]
    pairs = [choices(f"v{index}", 1, 2, when=(Condition(field=f"s{index}", values=(1,)),)) for index in range(30)]
    assert count([*switches[:30], *pairs]) == 3**30
    every = tuple(Condition(field=each.field, values=(1,)) for each in switches)
    assert count([*switches, choices("z", 1, 2, when=every)]) is None
    assert count([ranged("a", 0, 2.0**52, is_integer=True), choices("b", 1, 2)]) is None
    assert values_of(Range(low=0.0, high=1.0, step=1e-300)) is None


def test_identity_is_parameters_and_share_of_the_data() -> None:
    """Their order changes nothing; all rows are all rows however that is said; a share is another run."""
    assert digest_of({"a": 1, "b": 2.0}, 0.0) == digest_of({"b": 2.0, "a": 1}, 1.0)
    assert digest_of({"a": 1}, 0.5) != digest_of({"a": 1}, 1.0)
    assert digest_of({"a": True}, 0.0) != digest_of({"a": 1}, 0.0)
