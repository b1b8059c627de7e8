"""Every model gets its turn, what waits together starts together, and cancelled requests leave."""

import dataclasses
from typing import Any

import pytest

from services.inference.engine import rotation as rotation_module
from services.inference.engine.intake import Job
from services.inference.engine.models import ModelKey
from services.inference.engine.rotation import Rotation

A, B = ("a" * 64,), ("b" * 64,)


@dataclasses.dataclass(slots=True, eq=False)
class _Row:
    request: int
    left: int
    is_ended: bool = False


class _CountingBatch:
    """Stands in for the arithmetic: every step takes one token off every row."""

    def __init__(self, key: ModelKey, rows: list[Any], log: list[tuple[ModelKey, tuple[int, ...]]]) -> None:
        self.key, self.rows, self.log = key, rows, log

    @property
    def is_done(self) -> bool:
        return all(row.is_ended for row in self.rows)

    def cancel(self, request: int) -> None:
        for row in self.rows:
            row.is_ended = row.is_ended or row.request == request

    def step(self) -> list[Any]:
        live = [row for row in self.rows if not row.is_ended]
        self.log.append((self.key, tuple(row.request for row in live)))
        for row in live:
            row.left -= 1
            row.is_ended = row.left == 0
        return live


class _World:
    def __init__(self, max_rows: int = 4) -> None:
        self.log: list[tuple[ModelKey, tuple[int, ...]]] = []
        self.rotation = Rotation(self._batch, max_rows)

    def _batch(self, key: ModelKey, rows: Any) -> Any:
        return _CountingBatch(key, rows, self.log)

    def add(self, number: int, key: ModelKey, tokens: int, rows: int = 1) -> None:
        many: Any = [_Row(number, tokens) for _ in range(rows)]
        self.rotation.add(Job(number=number, model=key, rows=many))

    def run(self) -> None:
        while not self.rotation.is_idle:
            self.rotation.step()


@pytest.fixture(name="world")
def _world(monkeypatch: pytest.MonkeyPatch) -> _World:
    monkeypatch.setattr(rotation_module, "SLICE_S", 0.0)  # a turn is one step
    return _World()


def test_requests_that_wait_together_start_together(world: _World) -> None:
    """Requests for one model that are queued before it starts are computed as one batch."""
    for number in (1, 2, 3):
        world.add(number, A, tokens=2)
    world.run()
    assert world.log == [(A, (1, 2, 3)), (A, (1, 2, 3))]


def test_models_take_turns(world: _World) -> None:
    """A long completion of one model delays another's by a slice, not by its length."""
    world.add(1, A, tokens=50)
    world.rotation.step()
    world.add(2, B, tokens=2)
    world.run()
    assert [key for key, _ in world.log[:5]].count(B) == 2


def test_many_requests_of_one_model_do_not_crowd_out_another(world: _World) -> None:
    """A model with a long queue gets one turn in two, like the model with one request."""
    for number in range(20):
        world.add(number, A, tokens=10)
    world.add(99, B, tokens=10)
    world.run()
    assert max(place for place, (key, _) in enumerate(world.log) if key == B) <= 21


def test_room_is_kept(world: _World) -> None:
    """No more rows of one model run at once than there is room for; a request that is larger still runs alone."""
    for number in range(6):
        world.add(number, A, tokens=3, rows=2)
    world.add(9, A, tokens=1, rows=9)
    world.run()
    assert all(len(requests) <= 4 for _, requests in world.log if 9 not in requests)
    assert (A, (9,) * 9) in world.log


def test_late_requests_join_while_others_run(world: _World) -> None:
    """A request that comes while its model computes does not wait for the end of those before it."""
    world.add(1, A, tokens=50)
    world.rotation.step()
    world.add(2, A, tokens=2)
    world.run()
    assert max(place for place, (_, requests) in enumerate(world.log) if 2 in requests) < 10


def test_cancelled_requests_leave_the_queue_and_the_batch(world: _World) -> None:
    """A cancelled request is computed no more, whether it waited or ran, and the rotation comes to rest."""
    world.add(1, A, tokens=50)
    world.add(2, A, tokens=2)
    world.rotation.step()
    world.add(3, A, tokens=9, rows=4)
    world.rotation.cancel(1)
    world.rotation.cancel(3)
    world.run()
    assert world.log == [(A, (1, 2)), (A, (2,))]


def test_a_failed_batch_is_given_up_alone(world: _World) -> None:
    """The requests of the batch whose step failed are named, and the others go on."""
    world.add(1, A, tokens=5)
    world.rotation.step()
    assert world.rotation.drop_current() == {1}
    world.add(2, A, tokens=1)
    world.run()
    assert world.log[-1] == (A, (2,))
