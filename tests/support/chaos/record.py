"""What `make chaos` keeps of a test with faults: one committed file in `benchmarks/results` each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from benchmarks.record import RESULTS, machine

FULL = int(os.environ.get("TUNEFORGE_CHAOS_KILLS", "1")) > 1
"""Whether all faults are made and recorded; else the slice that `make test` makes."""
SEED = int(os.environ.get("TUNEFORGE_CHAOS_SEED", "20261121"))
"""Seed of everything random; printed with each result."""


def keep(name: str, what: str, facts: Mapping[str, Any]) -> None:
    """Prints what was found and, when all faults were made, writes it to `benchmarks/results/chaos_<name>.json`.

    Args:
        name: Of the file.
        what: What was done, one sentence.
        facts: Counts, violations and times by name.
    """
    print(f"\n{what}")
    for key, value in facts.items():
        print(f"  {key.replace('_', ' '):36} {value}")
    print(f"  {'seed':36} {SEED}")
    if not FULL:
        return
    record = {
        "command": "make chaos",
        "facts": dict(facts),
        "machine": machine(),
        "seed": SEED,
        "what": what,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = RESULTS / f"chaos_{name}.json"
    path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
