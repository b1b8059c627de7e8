"""Preference pairs: one prompt and two answers, of which one is better."""

from typing import Any

from tuneforge.data.problems import ProblemCode, RowFault
from tuneforge.data.shapes.conversation import read_messages
from tuneforge.data.shapes.texts import json_or_same, target_of, text_of


def read_preference(row: dict[str, Any]) -> dict[str, Any]:
    """Reads `prompt`, `chosen` and `rejected`, as texts or as lists of turns.

    With turns, what chosen and rejected begin with in common may stand in them or in the prompt; it is read as prompt.

    Raises:
        RowFault: the first fault found.
    """
    chosen, rejected = json_or_same(row["chosen"]), json_or_same(row["rejected"])
    if isinstance(chosen, list) != isinstance(rejected, list):
        message = "`chosen` and `rejected` are not of one kind: one is a list of turns, the other is not."
        raise RowFault(ProblemCode.TYPE_MISMATCH, message, "Give both as texts or both as turns.", field="rejected")
    pair = _turns(row.get("prompt"), chosen, rejected) if isinstance(chosen, list) else _texts(row)
    if pair["chosen"] == pair["rejected"]:
        message = "`chosen` and `rejected` are the same, so neither is better."
        raise RowFault(ProblemCode.EQUAL_PAIR, message, "Leave the row out.", field="rejected")
    return pair


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    if row.get("prompt") is None:
        message = "The column `prompt` is missing; without it the answers stand for themselves."
        raise RowFault(ProblemCode.MISSING_COLUMN, message, "Add `prompt`.", field="prompt")
    return {
        "prompt": text_of(row["prompt"], "prompt"),
        "chosen": target_of(row["chosen"], "chosen"),
        "rejected": target_of(row["rejected"], "rejected"),
    }


def _turns(prompt: Any, chosen: list[Any], rejected: list[Any]) -> dict[str, Any]:
    prompt = json_or_same(prompt)
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    given = prompt if isinstance(prompt, list) else []
    whole = [_whole(given, answer, name) for name, answer in (("chosen", chosen), ("rejected", rejected))]
    shared = 0
    for one, other in zip(*whole, strict=False):
        if one != other:
            break
        shared += 1
    shared = min(shared, len(whole[0]) - 1, len(whole[1]) - 1)
    return {"prompt": whole[0][:shared], "chosen": whole[0][shared:], "rejected": whole[1][shared:]}


def _whole(prompt: list[Any], answer: list[Any], field: str) -> list[dict[str, Any]]:
    has_prompt = answer[: len(prompt)] == prompt
    return read_messages(answer if has_prompt else [*prompt, *answer], field)
