"""Streams that are read in a thread of their own: nothing is lost, and nothing of them runs where Ctrl-C strikes."""

import threading
from collections.abc import Iterator

import pytest

from tuneforge._read_aside import read_aside


class Broken(Exception):
    """What a stream ends with."""


def test_everything_comes_in_order_and_from_another_thread() -> None:
    """Messages, the end, and an error behind messages; the stream itself never runs in the thread that waits."""
    threads: set[int] = set()

    def stream(count: int) -> Iterator[int]:
        for number in range(count):
            threads.add(threading.get_ident())
            yield number
        if count == 3:
            raise Broken

    assert list(read_aside(stream(100))) == list(range(100))
    messages = read_aside(stream(3))
    assert [next(messages) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Broken):
        next(messages)
    assert len(threads) >= 1
    assert threading.get_ident() not in threads


def test_a_slow_reader_is_not_overrun_and_a_closed_one_lets_go() -> None:
    """Two messages are read ahead at most; the thread ends when nobody listens any more."""
    read: list[int] = []
    ended, third = threading.Event(), threading.Event()

    def stream() -> Iterator[int]:
        try:
            for number in range(100):
                read.append(number)
                if number == 2:
                    third.set()
                yield number
        finally:
            ended.set()

    messages = read_aside(stream())
    assert next(messages) == 0
    assert not third.is_set()
    assert next(messages) == 1
    assert third.wait(10)
    assert len(read) <= 4
    messages.close()
    assert ended.wait(10)
    assert len(read) <= 5
