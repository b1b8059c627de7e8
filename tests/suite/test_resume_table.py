"""Every cell of the pairwise table of resumes: killed twice, and bit for bit what the unbroken run is, or refused."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from benchmarks.record import RESULTS
from benchmarks.resume_table import key_of
from tests.support.resume_cells import CELLS, prove


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leaves torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("cell", CELLS, ids=key_of)
def test_a_cell_is_resumed_exactly_or_refused_by_name(cell: Mapping[str, str], tmp_path: Path) -> None:
    """Losses, gradient norms, rates, rows and the digest of the result are those of a run that was never killed."""
    proof = prove(cell, tmp_path)
    if cell["method"] == "qdora_int8":
        assert proof.refused == "qlora.lora.use_dora"
    else:
        assert not proof.refused
        assert proof.is_exact


def test_the_committed_record_is_of_these_cells() -> None:
    """The table that people read has every cell, each proven or refused, and no other."""
    details = json.loads((RESULTS / "resume_table.json").read_text())["details"]
    cells = {name: value for name, value in details.items() if name.startswith("cell ")}
    assert set(cells) == {f"cell {key_of(cell)}" for cell in CELLS}
    assert all(value == "exact" or value.startswith("refused: ") for value in cells.values())
