"""The shapes that rows can have."""

import enum


class RowShape(enum.StrEnum):
    """What a row looks like; the values are those of the contract's `RowShape` without its prefix."""

    MESSAGES = "MESSAGES"
    """`messages`: a conversation, perhaps with tool calls, and `tools` that it may call."""
    PROMPT_COMPLETION = "PROMPT_COMPLETION"
    """`prompt` and `completion`, plain text."""
    INSTRUCTION = "INSTRUCTION"
    """`instruction` and `output`, perhaps `input` and `system`."""
    SHAREGPT = "SHAREGPT"
    """`conversations` of `from` and `value`; read as messages."""
    TEXT = "TEXT"
    """`text`: all of it is learned."""
    PREFERENCE = "PREFERENCE"
    """`prompt`, `chosen` and `rejected`, each a text or a list of turns."""
    TEXT_LABEL = "TEXT_LABEL"
    """`text` and `label`."""
    IMAGE_LABEL = "IMAGE_LABEL"
    """`image` and `label`."""
    CLICK_SESSION = "CLICK_SESSION"
    """A search, its results and what was clicked."""


TRAINABLE = frozenset(
    {RowShape.MESSAGES, RowShape.PROMPT_COMPLETION, RowShape.INSTRUCTION, RowShape.SHAREGPT, RowShape.TEXT}
)
"""Shapes that supervised fine-tuning of a language model can learn from."""

LEARNABLE = TRAINABLE | {RowShape.PREFERENCE}
"""Shapes that some task of a language model can learn from."""

CONVERSATIONS = frozenset({RowShape.MESSAGES, RowShape.INSTRUCTION, RowShape.SHAREGPT})
"""Shapes that are written by a chat template."""
