"""Packing 100,000 rows of chat lengths into lines of 2048 tokens, beside TRL's best-fit packing.

Lengths are log-normal with a median of 120 tokens, sigma 0.8, at most 512. Ours is timed from the lengths to the plan,
and from the lengths to the packed tokens; TRL's packs a data set in memory, which moves the tokens too.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from statistics import median

import numpy as np

from benchmarks.record import Record
from benchmarks.trl_python import trl_python
from services.trainer.engine.packing import best_fit, fill

ROWS, CAPACITY = 100_000, 2048
ROUNDS = 5
TARGET_FILL, GOAL_MS, TARGET_RATIO = 0.98, 200.0, 1.0
PEER = """
import json, sys, time
import datasets, numpy as np
from trl import pack_dataset
datasets.disable_progress_bars()
lengths = json.load(sys.stdin)
rows = datasets.Dataset.from_dict({"input_ids": [np.arange(n, dtype=np.int32) for n in lengths]})
found = []
for _ in range(int(sys.argv[1])):
    began = time.process_time()
    packed = pack_dataset(rows, int(sys.argv[2]), "bfd", {"load_from_cache_file": False, "keep_in_memory": True})
    found.append(time.process_time() - began)
print(json.dumps({"seconds": found, "lines": len(packed)}))
"""


def run() -> Record:
    """Runs the rounds and returns the record."""
    draws = np.random.default_rng(0).lognormal(math.log(120), 0.8, ROWS)
    lengths = np.clip(draws, 1, 512).astype(int).tolist()
    plans, wholes = [], []
    for _ in range(ROUNDS):
        began = time.process_time()
        lines = best_fit(lengths, CAPACITY)
        plans.append(time.process_time() - began)
        _gather(lengths, lines)
        wholes.append(time.process_time() - began)
    command = [trl_python(), "-c", PEER, str(ROUNDS), str(CAPACITY)]
    done = subprocess.run(command, input=json.dumps(lengths), check=True, capture_output=True, text=True)
    peer = json.loads(done.stdout.splitlines()[-1])
    ours, theirs = fill(lengths, CAPACITY, len(lines)), fill(lengths, CAPACITY, peer["lines"])
    plan_ms = median(plans) * 1e3
    return Record(
        name="pack_lengths",
        what="processor milliseconds to pack 100,000 rows into lines of 2048 tokens, tokens moved",
        ours=median(wholes) * 1e3,
        peer=median(peer["seconds"]) * 1e3,
        peer_name="trl.pack_dataset, best fit decreasing, in memory",
        ratio=median(peer["seconds"]) / median(wholes),
        target=TARGET_RATIO,
        limit=sum(lengths) * 8 / 20e9 * 1e3,  # reading and writing the tokens at 20 GB/s
        unit="ms",
        equal_output=ours >= max(TARGET_FILL, theirs - 1e-3),
        command="make bench NAME=pack_lengths",
        details={
            "fill": ours,
            "peer: fill": theirs,
            "lines": len(lines),
            "plan alone, ms": plan_ms,
            "plan within the goal of 200 ms": "yes" if plan_ms <= GOAL_MS else "no",
            "rounds": ROUNDS,
        },
    )


def _gather(lengths: list[int], lines: list[tuple[int, ...]]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Moves the tokens of all rows into the order of the lines."""
    sizes = np.asarray(lengths)
    starts = np.cumsum(sizes) - sizes
    tokens = np.zeros(int(sizes.sum()), dtype=np.int32)
    order = np.fromiter((row for line in lines for row in line), dtype=np.int64, count=len(lengths))
    shifts = starts[order] - (np.cumsum(sizes[order]) - sizes[order])
    places = np.arange(len(tokens)) + np.repeat(shifts, sizes[order])
    moved: np.ndarray[tuple[int], np.dtype[np.int32]] = tokens[places]
    return moved
