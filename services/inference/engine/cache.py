"""Keys and values of the tokens seen so far, in room that is taken ahead.

transformers' own cache copies everything at each step to add one token. At 64 rows that copy costs as much as the
matrix products; here a step writes one column.
"""

from typing import Any, Final

import torch
from transformers.cache_utils import Cache, DynamicLayer

_ROOM_STEP: Final = 64
"""Columns taken ahead at least: a growth copies all that is there, so it should be rare."""


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not read by the type checker
    """One layer's keys and values, B x heads x T x head width: views of the used part of `room`."""

    keys: torch.Tensor
    values: torch.Tensor
    room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds columns and returns all of them."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        wanted = used + key_states.shape[-2]
        if self.room is None or self.room[0].shape[-2] < wanted:
            self.room = (self._grown(self.keys, key_states, wanted), self._grown(self.values, value_states, wanted))
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, used:wanted] = states
        self.keys, self.values = (room[:, :, :wanted] for room in self.room)
        return self.keys, self.values

    def _grown(self, held: torch.Tensor, states: torch.Tensor, wanted: int) -> torch.Tensor:
        batch, heads, _, width = states.shape
        used = self.get_seq_length()
        room = states.new_empty(batch, heads, wanted + max(_ROOM_STEP, wanted // 4), width)
        if used:
            room[:, :, :used] = held
        return room

    def keep(self, rows: torch.Tensor, first_column: int) -> None:
        """Keeps some rows, and of these the columns from `first_column` on."""
        self.keys = self.keys[rows, :, first_column:]
        self.values = self.values[rows, :, first_column:]
        self.room = None


class RoomyCache(Cache):  # type: ignore[misc]  # transformers is not read by the type checker
    """The cache of one batch."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_RoomyLayer)

    def keep(self, rows: torch.Tensor, first_column: int = 0) -> None:
        """Keeps some rows (indices on the cache's device), and of these the columns from `first_column` on."""
        for layer in self.layers:
            layer.keep(rows, first_column)

    @classmethod
    def stacked(cls, caches: list["RoomyCache"]) -> "RoomyCache":
        """Puts the rows of several caches below each other; shorter ones get empty columns on their left."""
        if len(caches) == 1:
            return caches[0]
        whole = cls()
        columns = max(cache.get_seq_length() for cache in caches)
        for index in range(len(caches[0].layers)):
            layers = [cache.layers[index] for cache in caches]
            keys = torch.cat([_widened(layer.keys, columns) for layer in layers])
            values = torch.cat([_widened(layer.values, columns) for layer in layers])
            whole.update(keys, values, index)
        return whole


def _widened(states: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.nn.functional.pad(states, (0, 0, columns - states.shape[-2], 0))
