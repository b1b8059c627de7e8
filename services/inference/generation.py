"""What may be asked of a model, and all that is wrong with a request at once."""

import dataclasses
import math
import secrets
from collections.abc import Sequence
from typing import Final

from tuneforge.data.rows import Turn
from tuneforge.errors import FieldViolation

MAX_PROMPTS: Final = 64
MAX_NEW_TOKENS: Final = 4096
MAX_TEMPERATURE: Final = 2.0
MAX_STOPS: Final = 8
MAX_STOP_CHARACTERS: Final = 256
"""Far above any end mark; a longer text would be held back from the reader for as long."""
_ROLES: Final = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """Prompts and how they are to be completed."""

    prompts: Sequence[str | tuple[Turn, ...] | None]
    """Plain texts and conversations; None where neither was given."""
    max_new_tokens: int = 0
    """Most tokens for each prompt; 0: 128, or what the model has room for."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """None: a new one for each call."""
    stop: Sequence[str] = ()

    def drawn_seed(self) -> int:
        """Returns the seed, drawing one where none was given."""
        return secrets.randbits(63) if self.seed is None else self.seed


def check(request: GenerationRequest) -> list[FieldViolation]:
    """Lists what is wrong with a request, beside what only the model's tokenizer can tell."""
    found: list[FieldViolation] = []

    def refuse(field: str, description: str) -> None:
        found.append(FieldViolation(field, description))

    if not 1 <= len(request.prompts) <= MAX_PROMPTS:
        refuse("prompts", f"There are {len(request.prompts)}; give 1 to {MAX_PROMPTS}.")
    if request.max_new_tokens > MAX_NEW_TOKENS:
        refuse("max_new_tokens", f"It is {request.max_new_tokens}; give 1 to {MAX_NEW_TOKENS}, or 0 for 128.")
    if not 0 <= request.temperature <= MAX_TEMPERATURE or math.isnan(request.temperature):
        refuse("temperature", f"It is {request.temperature:g}; give 0 to {MAX_TEMPERATURE:g}.")
    if not 0 < request.top_p <= 1:
        refuse("top_p", f"It is {request.top_p:g}; give more than 0, up to 1.")
    if len(request.stop) > MAX_STOPS:
        refuse("stop", f"There are {len(request.stop)}; give at most {MAX_STOPS}.")
    for index, text in enumerate(request.stop):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            refuse(f"stop[{index}]", f"It has {len(text)} characters; give 1 to {MAX_STOP_CHARACTERS}.")
    for index, prompt in enumerate(request.prompts[:MAX_PROMPTS]):
        found.extend(_prompt_violations(f"prompts[{index}]", prompt))
    return found


def _prompt_violations(path: str, prompt: str | tuple[Turn, ...] | None) -> list[FieldViolation]:
    if prompt is None:
        return [FieldViolation(path, "It has neither text nor a conversation; give one of them.")]
    if isinstance(prompt, str):
        return [] if prompt else [FieldViolation(f"{path}.text", "It is empty; give at least one character.")]
    messages = f"{path}.conversation.messages"
    if not prompt:
        return [FieldViolation(messages, "There are none; give at least one turn.")]
    found = [
        FieldViolation(f"{messages}[{number}].role", f"It is {turn.role[:40]!r}; give one of {', '.join(_ROLES)}.")
        for number, turn in enumerate(prompt)
        if turn.role not in _ROLES
    ]
    if prompt[-1].role == "assistant":
        found.append(FieldViolation(messages, "The last turn is the assistant's; end with the turn it is to answer."))
    return found
