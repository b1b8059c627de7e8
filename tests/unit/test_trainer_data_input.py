"""What the trainer reads of the rows in its order."""

import pytest

from services.trainer.admission import StartRequest
from services.trainer.wire import read_start
from tuneforge.data.split import Split
from tuneforge.v1 import datasets_pb2, trainer_pb2


def started(split: datasets_pb2.DatasetSplit | None) -> StartRequest:
    """Returns an order for rows that are divided so, as it is read."""
    message = trainer_pb2.StartAttemptRequest(name="projects/p/jobs/j/attempts/1")
    message.train.manifest.files.add(path="a.jsonl", sha256="0" * 64, size_bytes=1)
    if split is not None:
        message.train.split.CopyFrom(split)
    return read_start(message)


def test_the_split_is_read() -> None:
    """By content, by files, or not at all."""
    found = [
        started(split).train
        for split in (
            None,
            datasets_pb2.DatasetSplit(by_files=True),
            datasets_pb2.DatasetSplit(validation_ratio=0.25, seed=7),
        )
    ]
    assert [each and each.split for each in found] == [None, Split(), Split(validation_ratio=0.25, seed=7)]


@pytest.mark.parametrize(("ratio", "seed"), [(0.6, 0), (-0.1, 0), (float("nan"), 0), (0.1, -1)])
def test_a_split_that_cannot_be_is_refused(ratio: float, seed: int) -> None:
    """It would divide otherwise than the registry said."""
    request = started(datasets_pb2.DatasetSplit(validation_ratio=ratio, seed=seed))
    assert "train.split" in [problem.field for problem in request.problems]
