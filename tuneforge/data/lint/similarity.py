"""Near duplicates by sketches of fixed size: probable, in bounded memory, the same for every order of the rows.

A text's shingles are its runs of five characters, in lower case with white space folded. A sketch keeps 16 bits of the
smallest hash of each of 64 classes of shingles (one-permutation MinHash; an empty class borrows from the next one). The
share of equal classes estimates the share of shingles that two texts have in common. Texts whose sketches agree in one
of 16 bands of four classes are compared; those whose estimate reaches the threshold are near duplicates.

Two texts with 90 % of their shingles in common share a band with a probability above 0.999 in theory; what is found of
them in tests is stated in ADR 0009. Hashes are CPython's hash of tuples of numbers, which is not salted.
"""

import operator
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

THRESHOLD: Final = 0.8
"""Least share of common shingles, as estimated, of near duplicates."""
CLASSES: Final = 64
SHORTEST: Final = 40
"""Texts with fewer characters are not compared: one word makes too much of a difference."""
LONGEST: Final = 4000
"""Of longer texts the first and the last half of this many characters are compared, so that no row takes long."""
SKETCH_BYTES: Final = 2 * CLASSES
_BANDS: Final = 16
_HEADS: Final = 8  # texts of a band's bucket that later ones are compared with, so that a full bucket stays cheap
_MASK: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15  # the golden ratio in 64 bits: multiples of it are far apart
_NONE: Final = 1 << 64  # above every hash


def sketch(text: str) -> bytes | None:
    """Returns the sketch of a text, 128 bytes; None for one that is too short."""
    folded = " ".join(text.lower().split())
    if len(folded) < SHORTEST:
        return None
    if len(folded) > LONGEST:
        folded = folded[: LONGEST // 2] + folded[-LONGEST // 2 :]
    points = folded.encode("ascii") if folded.isascii() else [ord(character) for character in folded]
    smallest = [_NONE] * CLASSES
    for value in set(map(hash, zip(points, points[1:], points[2:], points[3:], points[4:], strict=False))):
        if value < smallest[value & 63]:
            smallest[value & 63] = value
    if _NONE in smallest:
        smallest = _filled(smallest)
    # The lowest bits are the class; those from 13 up decide as well as any which of a class it was.
    return array("H", [(value >> 13) & 0xFFFF for value in smallest]).tobytes()


def _filled(smallest: list[int]) -> list[int]:
    """Returns the values with each empty class filled by that of the next one that has any, changed by the distance."""
    filled = []
    for number, value in enumerate(smallest):
        distance = 0
        while value == _NONE:
            distance += 1
            value = smallest[(number + distance) % CLASSES]
        filled.append(value + (distance * _STEP & _MASK))
    return filled


def likeness(first: bytes, second: bytes) -> float:
    """Returns the share of common shingles that two sketches tell of, 0 to 1."""
    equal: int = sum(map(operator.eq, memoryview(first).cast("H"), memoryview(second).cast("H")))
    return equal / CLASSES


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two texts that are probably near duplicates."""

    later: int
    """Number of the one that would be left out."""
    earlier: int
    share: float
    """Estimated share of common shingles, the threshold to 1."""


class Sketches:
    """The sketches of many texts, by number."""

    def __init__(self) -> None:
        """Takes 136 bytes a text, and about 150 more while they are compared."""
        self._bytes = bytearray()
        self.numbers = array("Q")
        """Numbers of the texts, in the order in which they were added."""

    def add(self, number: int, text: str) -> None:
        """Keeps the sketch of a text; one that is too short has none."""
        made = sketch(text)
        if made is not None:
            self.numbers.append(number)
            self._bytes += made

    def keys(self, band: int) -> memoryview:
        """Returns for each text what it has in a band."""
        return memoryview(self._bytes).cast("Q")[band::_BANDS]

    def at(self, place: int) -> bytes:
        """Returns the sketch of the text that was added in this place."""
        return bytes(self._bytes[place * SKETCH_BYTES : (place + 1) * SKETCH_BYTES])


def near_texts(texts: Sketches, rank: Sequence[bytes], *, earlier: Sketches | None = None) -> Iterator[Likeness]:
    """Yields near duplicates, each text once, with one of those that it is like.

    Args:
        texts: Those that would be left out.
        rank: For every number what its text is ordered by (its row's id), so that the order of rows does not matter;
            the lowest of a group is kept. Texts of equal rank are the same row.
        earlier: Those that are kept; None for the ones of `texts` that are lower in rank.
    """
    found: dict[int, Likeness] = {}
    own = sorted(range(len(texts.numbers)), key=lambda place: rank[texts.numbers[place]])
    for band in range(_BANDS):
        keys = texts.keys(band)
        buckets = _buckets(earlier, band, rank) if earlier else {}
        for place in own:
            if place in found:
                continue
            pair = _first_near((texts, place), earlier or texts, buckets.get(keys[place], ()), rank)
            if pair is not None:
                found[place] = pair
            elif earlier is None:
                _put(buckets, keys[place], place)
    for place in own:
        if place in found:
            yield found[place]


def _buckets(texts: Sketches, band: int, rank: Sequence[bytes]) -> dict[int, list[int]]:
    """Returns what a band has -> places of the texts that have it, lowest rank first."""
    buckets: dict[int, list[int]] = {}
    keys = texts.keys(band)
    for place in sorted(range(len(texts.numbers)), key=lambda place: rank[texts.numbers[place]]):
        _put(buckets, keys[place], place)
    return buckets


def _put(buckets: dict[int, list[int]], key: int, place: int) -> None:
    bucket = buckets.setdefault(key, [])
    if len(bucket) < _HEADS:
        bucket.append(place)


def _first_near(
    text: tuple[Sketches, int], heads: Sketches, places: Sequence[int], rank: Sequence[bytes]
) -> Likeness | None:
    """Returns the first of some texts that is near one, which is given by its sketches and its place there."""
    number, own = text[0].numbers[text[1]], text[0].at(text[1])
    for place in places:
        other = heads.numbers[place]
        if rank[other] == rank[number]:
            continue
        share = likeness(own, heads.at(place))
        if share >= THRESHOLD:
            return Likeness(number, other, share)
    return None
