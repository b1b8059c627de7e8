"""The process in which a model's files are read: limited in memory and time, without the service's secrets.

Files come from strangers, and reading them uses native code and the interpreter's lock. This process gets paths on its
input, writes what it found as lines of JSON, and ends. Before the tokenizer, whose patterns may run for ever, it writes
all that it knows and sets an alarm, so that its end says what was wrong.
"""

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.registry.child_limits import set_limits
from services.registry.folder import Folder
from services.registry.models.adapter_files import check_adapter
from services.registry.models.files import examine_adapter, examine_model
from services.registry.models.problems import Problems
from services.registry.models.shapes import Architecture, Tensor
from services.registry.models.tokenizer_files import examine_tokenizer

MEMORY_BYTES = 4 * 1024**3
"""Address space: native code reserves more than it uses; what is used stays below 1 GB with the largest files."""
CPU_S = 900
"""Enough to look at every number of 500 GB of weights."""
TOKENIZER_CPU_S = 8.0
"""A real tokenizer of 35 MB takes 2 s; a pattern without end takes all that it is given."""

EXIT_MEMORY = 7
"""Exit code of an examiner that has had all the memory that it may have."""

STAGE_FILES = "files"
STAGE_ALL = "all"


def run(order: dict[str, Any], answer: Any) -> None:
    """Examines what an order names.

    Args:
        order: `kind` (`model` or `adapter`), `paths` (path in the manifest -> file), `place` (an empty folder), and
            for an adapter `base`: the tensors of the model below it as `[name, shape, dtype]`, or `null`.
        answer: Takes a stage and what is known after it.
    """
    folder = Folder({path: Path(file) for path, file in order["paths"].items()})
    problems = Problems()
    if order["kind"] == "adapter":
        config, own = examine_adapter(folder, problems)
        if order["base"] is not None and not problems.found:
            base = [Tensor(name=name, shape=tuple(shape), dtype=dtype) for name, shape, dtype in order["base"]]
            check_adapter(config, own, base, problems)
        answer(STAGE_ALL, problems, None)
        return
    architecture = examine_model(folder, problems)
    answer(STAGE_FILES, problems, None)
    signal.setitimer(signal.ITIMER_PROF, TOKENIZER_CPU_S)
    examine_tokenizer(folder, Path(order["place"]), _vocabulary(architecture), problems)
    signal.setitimer(signal.ITIMER_PROF, 0)
    answer(STAGE_ALL, problems, architecture)


def _vocabulary(architecture: Architecture) -> int | None:
    value = json.loads(architecture.config_json).get("vocab_size") if architecture.class_name else None
    return value if isinstance(value, int) else None


def _answer(stage: str, problems: Problems, architecture: Architecture | None) -> None:
    found = [[problem.path, problem.sentence, problem.code] for problem in problems.found]
    known = asdict(architecture) if architecture is not None and not found else None
    sys.stdout.write(json.dumps({"stage": stage, "problems": found, "architecture": known}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Reads an order from the input and answers on the output."""
    set_limits(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=0)
    try:
        run(json.loads(sys.stdin.buffer.read()), _answer)
    except MemoryError:
        sys.exit(EXIT_MEMORY)


if __name__ == "__main__":
    main()
