"""Reading rows takes memory that does not grow with the data: the process that examines them is measured."""

import gzip
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"} | {
    "ARROW_DEFAULT_MEMORY_POOL": "system"
}
MIB = 2**20


PROGRAM = """
import sys
from services.registry.datasets.examiner import main
main()
sys.stderr.write(open("/proc/self/status").read())
"""


def examined(path: Path) -> tuple[dict[str, Any], int]:
    """Examines one file as the registry does; returns what was found and the most memory it took, in bytes."""
    order = {"kind": "examine", "split": [0.1, 0], "files": [[path.name, str(path)]]}
    command = [sys.executable, "-P", "-c", PROGRAM]
    done = subprocess.run(command, input=json.dumps(order).encode(), capture_output=True, env=ENVIRONMENT, check=True)
    [line] = [line for line in done.stderr.decode().splitlines() if line.startswith("VmHWM:")]
    return json.loads(done.stdout), int(line.split()[1]) * 1024


@pytest.mark.heavy
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Ten times as many rows take the same memory, but for the digests that find duplicates, which go to disk."""
    path = tmp_path / "a.jsonl"
    peaks = []
    for rows in (30_000, 300_000):
        with path.open("wb") as file:
            for start in range(0, rows, 10_000):
                numbers = range(start, start + 10_000)
                file.write(b"".join(b'{"prompt": "p%d", "completion": "c"}\n' % number for number in numbers))
        found, peak = examined(path)
        assert found["statistics"]["rows"] == rows
        peaks.append(peak)
    assert peaks[0] < 128 * MIB
    assert peaks[1] < peaks[0] + 64 * MIB


def test_large_row_groups_are_read_in_pieces(tmp_path: Path) -> None:
    """A Parquet file of one row group, of 100 MiB when decompressed, takes a fraction of that."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    texts = [f"{number} " * 500 for number in range(40_000)]
    table = arrow.table({"text": texts})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path, row_group_size=len(texts), compression="zstd")
    found, peak = examined(path)
    assert found["statistics"]["rows"] == len(texts)
    assert peak < 256 * MIB


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A gigabyte in a megabyte is refused long before it is there."""
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 4 * MIB, 9) * 256)
    found, peak = examined(path)
    assert found["counts"] == {"DECOMPRESSION_LIMIT": 1}
    assert peak < 128 * MIB
