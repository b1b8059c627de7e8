"""What a chat template writes around the contents of conversations whose speakers follow each other in the same order.

Rows of a data set are mostly of a few such orders. Where a text is, to the last letter, the contents of its turns
between what the template writes for the order, what is learned of it is found by adding up lengths; for all others, and
for the stand-ins that an outline is made of, `rendering.py` finds it out turn by turn.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

_MARK: Final = "\ue001"
_MARKS: Final = re.compile(f"{_MARK}[0-9]+{_MARK}")


def stand_in(turn: int) -> str:
    """Returns the content that a turn has in the conversation that an outline is made of."""
    return f"{_MARK}{turn}{_MARK}"


class Outline(NamedTuple):
    """What is written for one order of speakers."""

    pieces: tuple[str, ...]
    """What stands before, between and after the contents."""
    learned: tuple[tuple[int, int, int], ...]
    """Of each answer the index of its turn, and how many characters are learned before its content and after it."""

    @classmethod
    def of(cls, text: str, spans: Sequence[tuple[int, int]], answers: Sequence[int]) -> Self | None:
        """Makes one of a conversation of stand-ins; None where what is learned of it reaches into another turn.

        Args:
            text: As the template writes it.
            spans: What is learned of it, one for each answer.
            answers: Indices of the turns that are answers.
        """
        places = [match.span() for match in _MARKS.finditer(text)]
        turns = [text[start:end] for start, end in places]
        if turns != [stand_in(index) for index in range(answers[-1] + 1)]:  # the last turn is an answer
            return None
        ends = [0, *(end for _, end in places)]
        starts = [*(start for start, _ in places), len(text)]
        learned = []
        for index, (begin, end) in zip(answers, spans, strict=True):
            start, stop = places[index]
            if not (ends[index] <= begin <= start and stop <= end <= starts[index + 1]):
                return None
            learned.append((index, start - begin, end - stop))
        pieces = (text[end:start] for end, start in zip(ends, starts, strict=True))
        return cls(tuple(pieces), tuple(learned))

    def spans(self, contents: Sequence[str], text: str) -> list[tuple[int, int]] | None:
        """Returns what is learned of a text, one span for each answer; None where the text is not of this outline.

        Args:
            contents: Of the turns, in order.
            text: As the template writes it.
        """
        parts = [self.pieces[0]]
        ends = []
        size = len(parts[0])
        for content, piece in zip(contents, self.pieces[1:], strict=True):
            size += len(content)
            ends.append(size)
            size += len(piece)
            parts += (content, piece)
        if "".join(parts) != text:
            return None
        return [
            (ends[index] - len(contents[index]) - before, ends[index] + after) for index, before, after in self.learned
        ]
