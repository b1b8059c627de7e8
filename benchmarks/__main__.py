"""`python -m benchmarks [NAME ...]`: runs benchmarks beside their peers and prints the table of all records."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.record import RESULTS, Record

NAMES = (
    "submit_to_first_step",
    "sft_lora_cpu",
    "full_cpu",
    "pack_lengths",
    "token_cache",
    "metric_path",
    "watch_fanout",
    "cold_start",
    "memory",
    "step_time",
    "demo_gain",
    "artifact_loads",
    "merge_divergence",
    "registry_reads",
    "lint",
    "lineage",
    "blobs",
    "blobs_s3",
    "scheduling",
    "queue_scale",
    "metric_ingest",
    "checkpoint_stall",
    "resume_table",
)


def main(names: list[str]) -> int:
    """Runs the named benchmarks, all without a name. Returns 1 when one missed its target, 2 for an unknown name."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}: use {', '.join(NAMES)}", file=sys.stderr)
        return 2
    records: list[Record] = []
    for name in names or NAMES:
        print(f"running {name} ...", flush=True)
        record: Record = importlib.import_module(f"benchmarks.{name}").run()
        print(f"  {record.what}\n  written to {_relative(record.write())}", flush=True)
        records.append(record)
    print(table())
    return 0 if all(record.met for record in records) else 1


def _relative(path: Path) -> str:
    return str(path.relative_to(RESULTS.parent.parent))


def table() -> str:
    """Returns all records on disk as a table."""
    rows = [["benchmark", "ours", "peer", "ratio", "target", "limit", "equal work"]]
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        if "ours" not in record:
            continue  # a count of faults, which has no peer
        figures = [f"{record[key]:.3g} {record['unit']}" for key in ("ours", "peer")]
        rows.append(
            [
                record["name"],
                *figures,
                f"{record['ratio']:.1f}x",
                f"{record['target']:g}x",
                f"{record['limit']:.3g} {record['unit']}",
                "yes" if record["equal_output"] else "NO",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
