"""The peer of `benchmarks/lint.py`, run in a virtual environment of its own: Hugging Face `datasets`.

Loads a JSONL file as people do, without a cache from before, and looks at each row by a function of theirs: roles,
empty turns, exact copies. Prints the seconds of both and how many rows and copies there were.
"""

import hashlib
import json
import sys
import tempfile
import time


def main(path: str) -> None:
    """Measures one file."""
    import datasets  # type: ignore[import-not-found]  # of its own environment

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        rows = datasets.load_dataset("json", data_files=path, split="train", cache_dir=cache)
        loaded = time.perf_counter()
        seen: set[bytes] = set()
        copies = faults = 0
        for row in rows:
            turns = row["messages"]
            if turns[-1]["role"] != "assistant" or not all(turn["content"].strip() for turn in turns):
                faults += 1
            key = hashlib.sha256(json.dumps(turns, sort_keys=True).encode()).digest()
            copies += key in seen
            seen.add(key)
        done = time.perf_counter()
    print(
        json.dumps(
            {"load_s": loaded - began, "check_s": done - loaded, "rows": len(rows), "copies": copies, "faults": faults}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
