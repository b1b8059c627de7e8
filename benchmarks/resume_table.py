"""Exact resume of every task, method, optimiser and precision: a pairwise table on a tiny Llama, two kills a cell.

There is no peer to be faster than: the figure is the share of the cells that can run whose killed run is, bit for bit,
the unbroken one, and all of them is the only result that will do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.record import Record
from tests.support.resume_cells import CELLS, KILLS, prove


def key_of(cell: Mapping[str, str]) -> str:
    """Returns the name of a cell."""
    return " ".join(cell.values())


def run() -> Record:
    """Proves every cell and returns the record."""
    details: dict[str, float | str] = {"kills a cell": float(len(KILLS))}
    exact = ran = 0
    for cell in CELLS:
        with tempfile.TemporaryDirectory() as folder:
            proof = prove(cell, Path(folder))
        ran += not proof.refused
        exact += proof.is_exact
        verdict = f"refused: {proof.refused}" if proof.refused else "exact" if proof.is_exact else "NOT EXACT"
        details[f"cell {key_of(cell)}"] = verdict
    details["cells"], details["refused"] = float(len(CELLS)), float(len(CELLS) - ran)
    return Record(
        name="resume_table",
        what="Cells of task x method x optimiser x precision, pairwise, that two kills leave equal to an unbroken run.",
        ours=float(exact),
        peer=float(ran),
        peer_name="cells that can run on a CPU",
        ratio=exact / ran,
        target=1.0,
        limit=float(ran),
        unit="cells",
        equal_output=exact == ran,
        command="make bench NAME=resume_table",
        details=details,
    )
