"""Rows of every task for the tiny model, so short and few that a few steps learn them."""

import json
from pathlib import Path
from typing import Any, Final

from tuneforge.specs.spec import ContinuedPretrainingTask, PreferenceTask, RewardModelTask, SupervisedTask, Task

ANIMALS: Final = ("cat", "dog", "owl", "bee", "ant", "fox", "hen", "pig", "cow", "rat")


def row_of(task: Task, number: int) -> dict[str, Any]:
    """Returns one row that a task learns from."""
    animal, other = ANIMALS[number % len(ANIMALS)], ANIMALS[(number + 3) % len(ANIMALS)]
    match task:
        case SupervisedTask():
            turns = [{"role": "user", "content": f"Say {animal} {number}."}, {"role": "assistant", "content": animal}]
            return {"messages": turns}
        case ContinuedPretrainingTask():
            return {"text": f"The {animal} and the {other} are animals. " * (1 + number % 3)}
        case PreferenceTask() | RewardModelTask():
            # The better answer names what was asked for; its length tells nothing.
            answers = (f" {animal}", f" {other}") if number % 2 else (f" {animal}, yes", f" {other}, no")
            return {"prompt": f"Say {animal} {number}:", "chosen": answers[0], "rejected": answers[1]}


def write_task_rows(path: Path, task: Task, count: int = 10) -> Path:
    """Writes rows of a task as JSONL."""
    path.write_text("".join(json.dumps(row_of(task, number)) + "\n" for number in range(count)), encoding="utf-8")
    return path
