"""What tuning is worth: held-out exact match of the demo's tuned version beside its base, same prompt, same rows.

Runs the demo as a user would. `ratio` is the gain over the 40 points that the demo must gain, so that 1 is enough.
Equal work: both answered every held-out row.
"""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.record import Record
from examples.demo import FOLDER, GAIN_NEEDED


def run() -> Record:
    """Runs the demo and returns the record."""
    subprocess.run([sys.executable, "-m", "examples.demo"], check=False)
    report = json.loads((FOLDER / "report.json").read_text())
    tuned, base = 100 * report["tuned_exact_match"], 100 * report["base_exact_match"]
    kept = (
        "heldout_rows",
        "steps",
        "first_loss",
        "last_loss",
        "seconds_after_setup",
        "seconds_to_first_step",
        "digest",
    )
    return Record(
        name="demo_gain",
        what="exact match on the demo's held-out rows, tuned beside base; the ratio is the gain over 40 points",
        ours=tuned,
        peer=base,
        peer_name="the base model with the same prompt",
        ratio=(tuned - base) / (100 * GAIN_NEEDED),
        target=1.0,
        limit=100.0,
        unit="%",
        equal_output=report["heldout_rows"] > 0,
        command="make bench NAME=demo_gain",
        details={key: report[key] for key in kept},
    )
