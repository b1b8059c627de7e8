"""Rows as tokens: what is learned, what is left out, and a digest over all of it."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from services.trainer.engine.corpus import Corpus, read_corpus
from services.trainer.engine.training_task import TrainingFault
from tests.support.tiny_model import write_rows
from tuneforge.data.faults import OverlongRow, RenderingError
from tuneforge.data.masks import EncodedRow
from tuneforge.data.rows import Row
from tuneforge.errors import Reason


def encode(row: Row) -> EncodedRow | None:
    """Makes tokens of the line's number; drops line 2, cuts line 3, and learns the first and the last two tokens."""
    if row.line == 2:
        return None
    ids = (row.line, 10, 20, 99 if row.line == 3 else 30)
    return EncodedRow(ids=ids, supervised=(True, False, True, True), is_cut=row.line == 3)


def read(path: Path) -> Corpus:
    """Reads a file with the encoding above."""
    return read_corpus([path], partial(map, encode), check_stop=lambda: None)


def test_rows_become_examples(tmp_path: Path) -> None:
    """Dropped and cut rows are counted; the first token of a row has no token before it and is not learned."""
    corpus = read(write_rows(tmp_path / "rows.jsonl", 4))
    assert (len(corpus.examples), corpus.dropped, corpus.cut) == (3, 1, 1)
    assert corpus.examples[0].tokens_T.tolist() == [1, 10, 20, 30]
    assert corpus.examples[0].labels_S.tolist() == [2, 3]
    assert corpus.lengths == [4, 4, 4]
    assert corpus.is_chat


def test_the_end_token_is_that_of_whole_rows(tmp_path: Path) -> None:
    """A cut row does not tell what completions end with."""
    assert read(write_rows(tmp_path / "rows.jsonl", 4)).end_token == 30


def test_files_follow_each_other(tmp_path: Path) -> None:
    """Two files are read in the order of their names, and their order is part of the digest."""
    one, two = write_rows(tmp_path / "one.jsonl", 1), write_rows(tmp_path / "two.jsonl", 4)
    corpora = [read_corpus(paths, partial(map, encode), check_stop=lambda: None) for paths in ([one, two], [two, one])]
    two.rename(tmp_path / "a.jsonl")
    corpora.append(read_corpus([one, tmp_path / "a.jsonl"], partial(map, encode), check_stop=lambda: None))
    assert [len(corpus.examples) for corpus in corpora] == [4, 4, 4]
    assert corpora[0].digest == corpora[1].digest != corpora[2].digest


def test_a_row_without_anything_to_learn_is_left_out(tmp_path: Path) -> None:
    """A row whose only learned token is its first gives no example."""
    path = write_rows(tmp_path / "rows.jsonl", 2)
    no_label = EncodedRow(ids=(1, 2), supervised=(True, False))
    corpus = read_corpus([path], partial(map, lambda _row: no_label), check_stop=lambda: None)
    assert (list(corpus.examples), corpus.end_token) == ([], None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OverlongRow(3, 20, 10), "Line 3 has 20 tokens"),
        (RenderingError("It is odd.", "Mend it."), "Line 1: It is odd."),
    ],
)
def test_rows_that_cannot_be_encoded_are_named(error: Exception, words: str, tmp_path: Path) -> None:
    """What the encoding refuses is a fault of the data, with the line and a cure."""

    def refuse(_row: Row) -> EncodedRow | None:
        raise error

    path = write_rows(tmp_path / "rows.jsonl", 2)
    with pytest.raises(TrainingFault) as caught:
        read_corpus([path], partial(map, refuse), check_stop=lambda: None)
    assert caught.value.reason is Reason.INVALID_DATA
    assert words in caught.value.message
    assert caught.value.cure


def test_reading_can_be_stopped(tmp_path: Path) -> None:
    """Whoever reads a long file is asked every 256 rows whether to go on."""
    path, calls = write_rows(tmp_path / "rows.jsonl", 600), []
    read_corpus([path], partial(map, encode), check_stop=lambda: calls.append(1))
    assert len(calls) == 2


def test_tokens_take_four_bytes(tmp_path: Path) -> None:
    """Rows are held in flat 32-bit arrays."""
    example = read(write_rows(tmp_path / "rows.jsonl", 1)).examples[0]
    assert example.tokens_T.dtype == example.labels_S.dtype == np.int32
