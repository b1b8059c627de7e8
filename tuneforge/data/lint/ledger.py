"""What is remembered of every different row, some 200 bytes each, for the checks that compare rows with each other."""

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import overload

from tuneforge.data.lint.findings import Part
from tuneforge.data.lint.subjects import Subject

KEY_BYTES = 16
_ID_BYTES = 32
_NO_KEY = bytes(KEY_BYTES)


def key_of(text: str) -> bytes:
    """Returns 16 bytes that stand for a text: equal ones for equal texts, and for no two others in practice."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


class Ledger(Sequence[bytes]):
    """Different rows by number, in the order in which they were read; as a sequence, their ids as bytes."""

    def __init__(self, most: int) -> None:
        """Takes the most rows that are remembered, of both parts together."""
        self._most = most
        self._ids = bytearray()
        self._texts, self._prompts, self._targets = bytearray(), bytearray(), bytearray()
        self._lines, self._files = array("Q"), array("L")
        self._names: list[tuple[Part, str]] = []
        self._seen: dict[Part, set[bytes]] = {part: set() for part in Part}
        self._ranked: dict[Part, tuple[int, list[int]]] = {}
        self.is_full = False
        """Whether a row came for which there was no room."""

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, number: int) -> bytes: ...
    @overload
    def __getitem__(self, number: slice) -> list[bytes]: ...
    def __getitem__(self, number: int | slice) -> bytes | list[bytes]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        return bytes(self._ids[number * _ID_BYTES : (number + 1) * _ID_BYTES])

    def add(self, subject: Subject) -> None:
        """Remembers a row: gives it a number, or calls it a copy; does neither when there is no room."""
        seen, key = self._seen[subject.part], bytes.fromhex(subject.id[: 2 * KEY_BYTES])
        if key in seen:
            subject.is_copy = True
            return
        if len(self._lines) >= self._most:
            self.is_full = True
            return
        seen.add(key)
        subject.number = len(self._lines)
        self._ids += bytes.fromhex(subject.id)
        self._texts += key_of(subject.folded)
        prompt = subject.prompt
        self._prompts += key_of(prompt) if prompt else _NO_KEY
        self._targets += key_of(subject.target) if subject.target else _NO_KEY
        self._lines.append(subject.line)
        if not self._names or self._names[-1] != (subject.part, subject.file):
            self._names.append((subject.part, subject.file))
        self._files.append(len(self._names) - 1)

    def is_trained_on(self, row_id: str) -> bool:
        """Returns whether a row of the training part has this id."""
        return bytes.fromhex(row_id[: 2 * KEY_BYTES]) in self._seen[Part.TRAIN]

    def ranked(self, part: Part) -> list[int]:
        """Returns the rows of a part by number, in the order of their ids: the same in whatever order they came."""
        if self._ranked.get(part, (-1, []))[0] != len(self):
            numbers = [number for number in range(len(self)) if self.part(number) is part]
            self._ranked[part] = (len(self), sorted(numbers, key=self.__getitem__))
        return self._ranked[part][1]

    def part(self, number: int) -> Part:
        """Returns the part that a row belongs to."""
        return self._names[self._files[number]][0]

    def place(self, number: int) -> tuple[str, int]:
        """Returns a row's file and line."""
        return self._names[self._files[number]][1], self._lines[number]

    def row_id(self, number: int) -> str:
        """Returns a row's id."""
        return self[number].hex()

    def text_key(self, number: int) -> bytes:
        """Returns what stands for a row's folded text."""
        return _slice(self._texts, number)

    def prompt_key(self, number: int) -> bytes | None:
        """Returns what stands for a row's prompt; None for a row without one."""
        key = _slice(self._prompts, number)
        return key if key != _NO_KEY else None

    def target_key(self, number: int) -> bytes | None:
        """Returns what stands for a row's target; None for a row without one."""
        key = _slice(self._targets, number)
        return key if key != _NO_KEY else None


def _slice(keys: bytearray, number: int) -> bytes:
    return bytes(keys[number * KEY_BYTES : (number + 1) * KEY_BYTES])
