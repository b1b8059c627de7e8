"""Checks of what a run left in a folder: its loss, its answers, its checkpoint, its profile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuneforge.checks import Check, check_model_output, check_profile, check_training_loss
from tuneforge.manifest import IntegrityError, InvalidManifest, Manifest, verify
from tuneforge.one_shot.services import are_installed

NEW_TOKENS: Final = 50
MOST_PROMPTS: Final = 32
ANSWER_TIMEOUT_S: Final = 1800.0
DEFAULT_PROMPTS: Final = ("What is a language model?", "Write one sentence about the sea.", "2 + 2 =")
"""Asked where no test rows are given: every model says something to them."""
_NOT_INSTALLED: Final = (
    "the services, which load models, are not installed here; run it from a checkout of Tuneforge after `make setup`"
)


class MissingInfo(Exception):
    """There is no training info to look at; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRequest:
    """What is looked at."""

    training_info: Path
    model: Path
    """Folder of the result: a whole model, or an adapter."""
    base: Path | None = None
    """Folder of an adapter's base; None: what the training info names, if it is a folder."""
    checkpoint: Path | None = None
    """One checkpoint, or a folder with `checkpoint-*`."""
    profile: Path | None = None
    test_rows: Path | None = None
    """JSONL with prompts, and words that an answer should have (`keywords`)."""


def validate(request: ValidationRequest) -> tuple[list[Check], dict[str, str]]:
    """Makes every check.

    Returns:
        What was found, and the names of checks that could not be made with the reason.

    Raises:
        MissingInfo: The training info is not there or not JSON.
    """
    info = read_info(request.training_info)
    loss = info.get("results", {}).get("train_loss")
    is_number = isinstance(loss, int | float) and not isinstance(loss, bool)
    checks = [check_training_loss(float(loss) if is_number else None)]
    not_run: dict[str, str] = {}
    _add_output(request, info, checks, not_run)
    if request.checkpoint is None:
        not_run["checkpoint_integrity"] = "no --checkpoint-path was given"
    else:
        checks.append(check_checkpoint(request.checkpoint))
    if request.profile is None:
        not_run["aim_profile"] = "no --profile-path was given"
    elif not request.profile.is_file():
        checks.append(Check(name="aim_profile", passed=False, message=f"There is no file {request.profile}."))
    else:
        checks.append(check_profile(request.profile.read_text(encoding="utf-8", errors="replace")))
    return sorted(checks, key=lambda check: check.name), not_run


def read_info(path: Path) -> dict[str, Any]:
    """Reads a training info.

    Raises:
        MissingInfo: It is not there, or no JSON object with objects in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingInfo(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise MissingInfo(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise MissingInfo(f"{path} is no JSON object")
    for part in ("results", "training_config"):
        if not isinstance(content.get(part, {}), dict):
            raise MissingInfo(f"{path}: `{part}` is no JSON object")
    return content


def check_checkpoint(path: Path) -> Check:
    """Reads every byte of a checkpoint and compares it with its manifest.

    Args:
        path: The checkpoint, or a folder whose newest one is meant.
    """
    name = "checkpoint_integrity"
    if not (path / "manifest.json").is_file():
        found = [each for each in path.glob("checkpoint-*") if each.name.removeprefix("checkpoint-").isdigit()]
        path = max(found, key=lambda each: int(each.name.removeprefix("checkpoint-")), default=path)
    try:
        manifest = Manifest.from_json((path / "manifest.json").read_bytes())
        verify(path, manifest, exclude=["manifest.json"])
        json.loads((path / "state.json").read_bytes())
    except OSError as error:
        return Check(name=name, passed=False, message=f"{path} is no checkpoint: {error.strerror} ({error.filename}).")
    except (IntegrityError, InvalidManifest, ValueError) as error:
        return Check(name=name, passed=False, message=f"The checkpoint {path} is damaged: {error}."[:1000])
    message = f"Every byte of {len(manifest.files)} files is what the manifest says."
    return Check(name=name, passed=True, message=message, details={"digest": manifest.digest, "path": str(path)})


def _add_output(
    request: ValidationRequest, info: Mapping[str, Any], checks: list[Check], not_run: dict[str, str]
) -> None:
    name = "model_output"
    if not are_installed():
        # Whoever gave test rows wants an answer; without any, nobody has asked.
        if request.test_rows is None:
            not_run[name] = _NOT_INSTALLED
        else:
            checks.append(Check(name=name, passed=False, message=f"It could not be made: {_NOT_INSTALLED}."))
        return
    try:
        prompts, keywords = (DEFAULT_PROMPTS, ()) if request.test_rows is None else read_prompts(request.test_rows)
    except (OSError, ValueError) as error:
        checks.append(Check(name=name, passed=False, message=f"The test rows cannot be read: {error}."))
        return
    answer = _ask(request, info, prompts)
    if "fault" in answer:
        checks.append(Check(name=name, passed=False, message=f"The model could not be asked: {answer['fault']}"[:1000]))
        return
    checks.append(check_model_output(answer["completions"], keywords))


def read_prompts(path: Path) -> tuple[Sequence[Any], Sequence[Sequence[str]]]:
    """Reads prompts, and the words of which an answer must have one, from rows.

    Args:
        path: JSONL of rows as one trains on, each with `keywords` if wanted; the first 32 are taken.

    Raises:
        ValueError: A row has no prompt.
        OSError: The file cannot be read.
    """
    prompts: list[Any] = []
    keywords: list[Sequence[str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or len(prompts) == MOST_PROMPTS:
            continue
        row = json.loads(line)
        prompt = _prompt_of(row) if isinstance(row, dict) else None
        if not prompt:
            raise ValueError(f"line {number} has no `prompt`, `instruction` or `messages`")
        prompts.append(prompt)
        keywords.append(tuple(map(str, row.get("keywords", ()))))
    if not prompts:
        raise ValueError("there is no row")
    return prompts, keywords


def _prompt_of(row: Mapping[str, Any]) -> Any:
    """Returns a text, or the turns before the answer."""
    if isinstance(row.get("messages"), list):
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]
        return turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
    if isinstance(row.get("instruction"), str):
        asked = "\n\n".join(text for text in (row["instruction"], row.get("input")) if text)
        return [{"role": "user", "content": asked}]
    return row.get("prompt")


def _ask(request: ValidationRequest, info: Mapping[str, Any], prompts: Sequence[Any]) -> dict[str, Any]:
    """Has a process that may load models complete the prompts."""
    named = Path(str(info.get("model_id", "")))
    base = request.base or (named if named.is_dir() else None)
    asked = {
        "model": str(request.model.absolute()),
        "base": str(base.absolute()) if base else None,
        "prompts": list(prompts),
        "max_new_tokens": NEW_TOKENS,
    }
    if (request.model / "adapter_config.json").is_file() and base is None:
        return {"fault": "the folder holds an adapter: give its base with --base-path."}
    done = subprocess.run(
        [sys.executable, "-m", "services.modelkit.answers"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWER_TIMEOUT_S,
    )
    if done.returncode:
        return {"fault": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "its process ended."}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
