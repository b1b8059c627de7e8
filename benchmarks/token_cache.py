"""Rows as tokens, made and then found again, beside `datasets.map` with its cache.

100,000 chat rows of a few sentences, the tokenizer of SmolLM2. Cold: read, rendered, made into tokens and kept. Warm:
found, checked to the last byte and mapped. The peer makes the same tokens and labels in batches of a thousand, finding
where an answer begins as people do, by the tokens of its prompt; the second time it finds its own cache, which it does
not check.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.record import Record
from benchmarks.trl_python import trl_python
from examples import smollm2
from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine.corpus import Corpus
from services.trainer.engine.texts import Texts
from services.trainer.engine.token_cache import TokenCache
from services.trainer.engine.training_task import TrainingInputs
from tuneforge.manifest import build
from tuneforge.specs.spec import DataConfig, LoraMethod, TrainingSpec

ROWS = 100_000
WARM_ROUNDS = 5
TARGET_RATIO = 100.0
"""Cold over warm time of ours."""
PEER = """
import json, sys, tempfile, time
import datasets
from transformers import AutoTokenizer
datasets.disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
def encode(batch):
    rows = batch["messages"]
    ids = tokenizer(tokenizer.apply_chat_template(rows, tokenize=False), add_special_tokens=False)["input_ids"]
    asked = [row[:-1] for row in rows]
    prompts = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    starts = map(len, tokenizer(prompts, add_special_tokens=False)["input_ids"])
    # The answer and its end token are learned, the line break behind it is not.
    labels = [[-100] * start + row[start:-1] + [-100] for start, row in zip(starts, ids)]
    return {"input_ids": ids, "labels": labels}
with tempfile.TemporaryDirectory() as folder:
    rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=folder)
    found = []
    for _ in range(2):
        began = time.perf_counter()
        encoded = rows.map(encode, batched=True, batch_size=1000, remove_columns=rows.column_names)
        found.append(time.perf_counter() - began)
    tokens = sum(map(len, encoded["input_ids"]))
    labels = sum(len(row) - row.count(-100) for row in encoded["labels"])
    print(json.dumps({"cold": found[0], "warm": found[1], "tokens": tokens, "labels": labels}))
"""


def run() -> Record:
    """Makes the rows, measures ours and the peer, and returns the record."""
    weights = smollm2.ensure()
    with tempfile.TemporaryDirectory() as name:
        rows = _write_rows(Path(name) / "rows.jsonl")
        task = _task(weights, rows, Path(name))
        cold_s, made = _timed(lambda: _read(task))
        warm = [_timed(lambda: _read(task)) for _ in range(WARM_ROUNDS)]
        done = subprocess.run(
            [trl_python(), "-c", PEER, str(rows), str(weights)], check=True, capture_output=True, text=True
        )
    peer = json.loads(done.stdout.splitlines()[-1])
    warm_s, tokens = median(seconds for seconds, _ in warm), sum(made.lengths)
    labels = len(made.examples.labels)
    is_same = all(found.digest == made.digest and sum(found.lengths) == tokens for _, found in warm)
    return Record(
        name="token_cache",
        what="seconds to have 100,000 chat rows as tokens the second time, checked; the ratio is to the first time",
        ours=warm_s,
        peer=peer["warm"],
        peer_name="datasets.map, batched, from its own cache, unchecked",
        ratio=cold_s / warm_s,
        target=TARGET_RATIO,
        limit=rows_bytes_s(tokens),
        unit="s",
        equal_output=is_same and (peer["tokens"], peer["labels"]) == (tokens, labels),
        command="make bench NAME=token_cache",
        details={
            "tokens": tokens,
            "cold_s": cold_s,
            "rows/s cold": ROWS / cold_s,
            "rows/s warm": ROWS / warm_s,
            "labels": labels,
            "peer: cold_s": peer["cold"],
            "peer: cold over ours": peer["cold"] / cold_s,
            "peer: tokens": peer["tokens"],
            "peer: cold over warm": peer["cold"] / peer["warm"],
        },
    )


def rows_bytes_s(tokens: int) -> float:
    """Returns the seconds that reading the arrays takes at 31 GB/s."""
    return tokens * 4 * 1.3 / 31e9


def _write_rows(path: Path) -> Path:
    words = [
        "ship",
        "order",
        "late",
        "refund",
        "invoice",
        "box",
        "blue",
        "cancel",
        "account",
        "reset",
        "help",
        "price",
        "delay",
        "parcel",
        "lost",
        "city",
    ]
    draw = random.Random(0)
    with path.open("w") as file:
        for number in range(ROWS):
            ask = " ".join(draw.choices(words, k=draw.randint(8, 40)))
            turns = [
                {"role": "user", "content": f"{number}: {ask}?"},
                {"role": "assistant", "content": " ".join(draw.choices(words, k=draw.randint(3, 20)))},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def _task(weights: Path, rows: Path, folder: Path) -> TrainingInputs:
    manifest = build(weights)
    return TrainingInputs(
        spec=TrainingSpec(method=LoraMethod(), data=DataConfig(max_tokens=1024)),
        base=[LocalArtifact(folder=weights, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)],
        train=[rows],
        checkpoints=folder,
        attempt=1,
        output=folder,
        threads=1,
        tokens=TokenCache(folder=folder / "tokens", limit_bytes=1 << 32),
    )


def _read(task: TrainingInputs) -> Corpus:
    return Texts(task, task.spec, lambda: None).train


def _timed(work: Callable[[], Corpus]) -> tuple[float, Corpus]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found
