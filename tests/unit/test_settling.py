"""What follows from a draft is remembered by the very objects that it was made from, and is what it would be anew."""

from __future__ import annotations

from dataclasses import replace

from services.scheduler.calibration import Kind
from services.scheduler.estimating import Known, are_alike
from services.scheduler.node_records import Capacity, Node
from services.scheduler.queues.budgets import NO_PRICE
from services.scheduler.remembering import KEPT, Remembering, Unchanged
from services.scheduler.settling import Found, settle, whole_spec
from services.scheduler.wire.inputs import KEPT_BYTES_MAX, dataset_facts, model_facts
from services.scheduler.wire.specs import spec_bytes, spec_bytes_into
from tests.support.fake_registry import FakeRegistry
from tests.support.scheduling import tiny_spec
from tuneforge.specs.scheduling import DEFAULT
from tuneforge.specs.spec import LoraMethod
from tuneforge.specs.wire import spec_from_proto

KIND = Kind(family="", method="lora", compute="auto", device="cpu")
KNOWN = Known(nodes=(), runs={KIND: ()}, row_tokens=None)


def found(rank: int = 4) -> Found:
    """Returns a draft's spec with what it names, as they come from wire and registry each time."""
    registry = FakeRegistry()
    spec = spec_from_proto(tiny_spec())
    base = model_facts(next(iter(registry.models.values())))
    train = dataset_facts(next(iter(registry.datasets.values())))
    spec = replace(spec, method=LoraMethod(rank=rank))
    return Found(spec=spec, base=base, architecture=base.architecture, train=train, validation=None)


def test_the_same_objects_are_settled_once_and_others_anew() -> None:
    """One draft gives one object; another rank, data set or set of nodes gives another."""
    one, other = found(), found(rank=8)
    terms = (DEFAULT, NO_PRICE)
    assert one.base is other.base  # read from the same content
    assert one.train is other.train
    settled = settle(one, whole_spec(one), KNOWN, terms)
    assert settle(one, whole_spec(one), KNOWN, terms) is settled
    changed = settle(other, whole_spec(other), KNOWN, terms)
    assert changed.training_digest != settled.training_digest
    elsewhere = settle(one, whole_spec(one), replace(KNOWN), terms)
    assert elsewhere is not settled
    assert elsewhere == settled


def test_what_follows_from_very_many_files_is_worked_out_anew() -> None:
    """Such data is another object at each submit: what remembered it would hold a copy for each of the last ones."""
    one = found()
    for large in (
        replace(one, train=replace(one.train, data=bytes(KEPT_BYTES_MAX + 1))),
        replace(one, validation=replace(one.train, data=bytes(KEPT_BYTES_MAX + 1))),
    ):
        spec = whole_spec(large)
        assert whole_spec(large) == spec
        assert whole_spec(large) is not spec
        settled = settle(large, spec, KNOWN, (DEFAULT, NO_PRICE))
        assert settle(large, spec, KNOWN, (DEFAULT, NO_PRICE)) == settled
        assert settle(large, spec, KNOWN, (DEFAULT, NO_PRICE)) is not settled


def test_what_is_known_stays_the_same_object_while_leases_are_renewed() -> None:
    """A renewed lease gives the object from before; another capacity, or what equals it no more, gives the new one."""
    capacity = Capacity(device_bytes=(), cpu_millis=1000, memory_bytes=1, slots=1)
    node = Node(
        node="n1",
        address="",
        capacity=capacity,
        capacity_message=b"",
        labels={},
        generation="1",
        version="",
        state="READY",
        lease_until_ms=1,
        unreachable_ms=None,
        manager_token="",
    )
    kept, first = Unchanged(are_alike), replace(KNOWN, nodes=(node,))
    renewed = replace(first, nodes=(replace(node, lease_until_ms=2),))
    larger = replace(first, nodes=(replace(node, capacity=replace(capacity, slots=2)),))
    assert kept.of("a", first) is first
    assert kept.of("a", renewed) is first
    assert kept.of("b", renewed) is renewed
    assert kept.of("a", larger) is larger
    assert kept.of("a", renewed) is renewed
    for number in range(KEPT):
        kept.of(number, first)
    assert kept.of("a", first) is first  # not kept any more


def test_the_output_is_put_into_a_stored_spec() -> None:
    """The bytes are those of the spec with that output."""
    one = found()
    settled = settle(one, whole_spec(one), KNOWN, (DEFAULT, NO_PRICE))
    named = replace(settled.spec, output_model="projects/p/models/m")
    assert spec_bytes_into(settled.spec_bytes, "projects/p/models/m") == spec_bytes(named)


def test_what_was_used_longest_ago_goes_first() -> None:
    """No more than so many results are kept, and each belongs to its own objects."""
    kept, made = Remembering[int](), list[int]()
    things = [object() for _ in range(KEPT + 1)]

    def result(number: int) -> int:
        def make() -> int:
            made.append(number)
            return number

        return kept.of((things[number],), make)

    assert [result(number) for number in range(KEPT)] == list(range(KEPT))
    assert result(0) == 0
    assert result(KEPT) == KEPT  # and 1 goes
    assert [result(0), result(1)] == [0, 1]
    assert made == [*range(KEPT + 1), 1]
