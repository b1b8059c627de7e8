"""Rows a second of the linter's structural pass, beside `datasets` with the same few checks written by hand.

One core, one process after the other, rounds alternate. The rows are short conversations of which one in a hundred is a
copy. Equal work: both find the same number of rows and of copies; the peer looks at three things more cheaply than our
seven checks can, so half of its rate is asked for, and 20,000 rows a second in any case. The floor is a loop of
`json.loads` and a few look-ups, which finds no copies. Near duplicates, secrets and personal data, and tokens are
measured apart, in the details.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from benchmarks.record import Record
from tests.support.tiny_model import make_tiny_model
from tuneforge.data.lint import LintOptions, Rows, Summary, TextModel, lint

ROWS = 100_000
ROUNDS = 3
LEAST_ROWS_S = 20_000.0
TARGET_RATIO = 0.5
_TOKEN_ROWS = 10_000
_COPY_EVERY = 100
_ENVIRONMENT = Path(__file__).parent.parent / "build" / "bench-lint-peer"


def run() -> Record:
    """Runs the rounds and returns the record."""
    peer_python = _peer_environment()
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder) / "train.jsonl", ROWS)
        few = write_rows(Path(folder) / "few.jsonl", _TOKEN_ROWS)
        model = TextModel.load(make_tiny_model(Path(folder) / "model"))
        seconds: dict[str, list[float]] = {}
        equal = True
        for _ in range(ROUNDS):
            summary = _timed(seconds, "structure", lambda: _lint(path, "structure"))
            _timed(seconds, "floor", lambda: _floor(path))
            _timed(seconds, "near_duplicates", lambda: _lint(path, "similarity"))
            _timed(seconds, "privacy", lambda: _lint(path, "privacy"))
            _timed(seconds, "all", lambda: _lint(path))
            _timed(seconds, "tokens", lambda: _lint(few, "tokens", model=model))
            peer = _peer(peer_python, path)
            seconds.setdefault("peer", []).append(peer["load_s"] + peer["check_s"])
            seconds.setdefault("peer_load", []).append(peer["load_s"])
            equal &= (summary.rows, summary.by_code.get("DUPLICATE_ROW", 0)) == (peer["rows"], peer["copies"])
    counts = dict.fromkeys(seconds, ROWS) | {"tokens": _TOKEN_ROWS}
    rates = {name: counts[name] / statistics.median(values) for name, values in seconds.items()}
    return Record(
        name="lint",
        what=f"rows a second of the linter's structural pass over short conversations (at least {LEAST_ROWS_S:.0f})",
        ours=rates["structure"],
        peer=rates["peer"],
        peer_name="datasets: load_dataset and a loop that looks at roles, empty turns and copies",
        ratio=rates["structure"] / rates["peer"],
        target=TARGET_RATIO,
        limit=rates["floor"],
        unit="rows/s",
        equal_output=equal and rates["structure"] >= LEAST_ROWS_S,
        command="make bench NAME=lint",
        details={
            **{f"{name}_rows_s": round(rate) for name, rate in rates.items() if name not in {"structure", "peer"}},
            "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "rows": ROWS,
            "file_mib": round(ROWS * _row_bytes() / 2**20),
            "rounds": ROUNDS,
            "at_least_rows_s": LEAST_ROWS_S,
        },
    )


def write_rows(path: Path, count: int) -> Path:
    """Writes conversations of some 35 words; the same count gives the same bytes."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(4000)]
    lines: list[str] = []
    for number in range(count):
        if number % _COPY_EVERY == _COPY_EVERY - 1:
            lines.append(rng.choice(lines[-50:]))
            continue
        texts = [" ".join(rng.choices(words, k=length)) for length in (15, 20)]
        turns = [{"role": "user", "content": f"{texts[0]}?"}, {"role": "assistant", "content": f"{texts[1]}."}]
        lines.append(json.dumps({"messages": turns}))
    path.write_text("\n".join(lines) + "\n")
    return path


def _row_bytes() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return write_rows(Path(folder) / "rows.jsonl", 500).stat().st_size / 500


def _timed(seconds: dict[str, list[float]], name: str, work: Callable[[], Summary]) -> Summary:
    began = time.perf_counter()
    result = work()
    seconds.setdefault(name, []).append(time.perf_counter() - began)
    return result


def _lint(path: Path, *only: str, model: TextModel | None = None) -> Summary:
    (last,) = deque(lint(Rows(files={path.name: path}), LintOptions(only=only), model), maxlen=1)
    if not isinstance(last, Summary):
        raise TypeError("a lint ends with its summary")
    return last


def _floor(path: Path) -> Summary:
    """Reads and looks at rows in the plainest way; what it returns is of no use."""
    rows = 0
    with path.open("rb") as file:
        for line in file:
            turns = json.loads(line)["messages"]
            rows += turns[-1]["role"] == "assistant" and all(turn["content"] for turn in turns)
    return Summary(
        rows=rows, validation_rows=0, malformed=0, findings=0, by_severity={}, by_code={}, not_listed={}, checks=(),
        skipped={},
    )  # fmt: skip


def _peer_environment() -> Path:
    """Returns the interpreter of an environment with `datasets`, made once."""
    python = _ENVIRONMENT / "bin" / "python"
    if not (_ENVIRONMENT / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "datasets>=4"], check=True)
        (_ENVIRONMENT / ".ready").touch()
    return python


def _peer(python: Path, path: Path) -> dict[str, float]:
    environment = {"PATH": os.environ.get("PATH", ""), "HF_HUB_OFFLINE": "1", "HOME": str(path.parent)}
    script = Path(__file__).with_name("lint_peer.py")
    done = subprocess.run([python, script, path], env=environment, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured
