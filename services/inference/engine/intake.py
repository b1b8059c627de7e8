"""From a request of the service to rows that can be computed, with every fault of its prompts in one answer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from services.inference.engine.batch import Row
from services.inference.engine.models import ModelKey
from services.inference.engine.sampling import Sampler
from services.inference.engine.text import TextStream
from services.inference.framing import Message
from services.modelkit.loading import LoadedBase
from tuneforge.data.faults import RenderingError
from tuneforge.data.masks import encode_prompt
from tuneforge.data.rows import Turn

Violation = tuple[str, str]
"""Path of a field of the request, and what is wrong with it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that can be computed."""

    number: int
    """The service's number of the request."""
    model: ModelKey
    rows: Sequence[Row]


def read_request(message: Message, base: LoadedBase, character_limit: int | None = None) -> Job | list[Violation]:
    """Makes the rows of a request, or lists all that is wrong with its prompts.

    Args:
        message: the request; `violations` in it are faults that the service found, to which those found here are added.
        base: the loaded base.
        character_limit: characters above which no prompt fits, so that a longer one is refused before its tokens are
            made; None for no such limit.
    """
    violations: list[Violation] = [(field, text) for field, text in message["violations"]]
    prompts: list[list[int]] = []
    for index, prompt in enumerate(message["prompts"]):
        if prompt is None:  # one that the service refused already
            continue
        field, content = _content(prompt, index)
        try:
            prompts.append(encode_prompt(content, base.tokenizer, base.chat_format, character_limit))
        except RenderingError as error:
            violations.append((field, str(error)))
            continue
        if problem := _length_problem(len(prompts[-1]), message["max_new_tokens"], base.max_positions):
            violations.append((field, problem))
    return violations or _job(message, prompts, base)


def _content(prompt: dict[str, Any], index: int) -> tuple[str, str | list[Turn]]:
    if "text" in prompt:
        return f"prompts[{index}].text", str(prompt["text"])
    turns = [Turn(role=role, content=content) for role, content in prompt["messages"]]
    return f"prompts[{index}].conversation", turns


def _length_problem(length: int, wanted: int, limit: int) -> str:
    if not length:
        return "The prompt has no token. Give at least one character."
    if length >= limit:
        return f"The prompt has {length} tokens, but the model reads at most {limit}, with room for one more to answer."
    if length + wanted > limit:
        return (
            f"The prompt has {length} tokens and max_new_tokens is {wanted}, but the model takes {limit} together. "
            f"Ask for {limit - length} or fewer."
        )
    return ""


def _job(message: Message, prompts: Sequence[list[int]], base: LoadedBase) -> Job:
    rows = [
        Row(
            request=message["id"],
            index=index,
            prompt=prompt,
            # 0: not asked for; 128 or what the model has room for.
            limit=message["max_new_tokens"] or min(128, base.max_positions - len(prompt)),
            sampler=Sampler.seeded(
                temperature=message["temperature"], top_p=message["top_p"], seed=message["seed"], row=index
            ),
            text=TextStream(base.tokenizer, message["stop"]),
        )
        for index, prompt in enumerate(prompts)
    ]
    return Job(number=message["id"], model=tuple(message["adapters"]), rows=rows)
