"""What can be wrong with a model's tokenizer files, with its chat template, or with a conversation for it."""

import enum


class RenderingCode(enum.StrEnum):
    """What kind of fault a `RenderingError` is, for programs; stable."""

    TOKENIZER_UNUSABLE = "TOKENIZER_UNUSABLE"
    """A file of the tokenizer is missing or malformed: no row can be written."""
    NO_CHAT_TEMPLATE = "NO_CHAT_TEMPLATE"
    """No conversation can be written."""
    TEMPLATE_INVALID = "TEMPLATE_INVALID"
    """It is no template: no conversation can be written."""
    TEMPLATE_FAILS = "TEMPLATE_FAILS"
    """The template fails at this conversation."""
    TEMPLATE_REFUSES = "TEMPLATE_REFUSES"
    """The template says that it does not take this conversation."""
    TURN_DROPPED = "TURN_DROPPED"
    """The template leaves a turn out, repeats it or moves it."""
    TOOLS_DROPPED = "TOOLS_DROPPED"
    """The template does not write the tools of a conversation."""
    TURN_REWRITTEN = "TURN_REWRITTEN"
    """The template changes what the assistant says."""
    NO_END_TOKEN = "NO_END_TOKEN"  # noqa: S105 - the name of a fault
    """Nothing that could be learned ends an assistant's turn."""
    CONTROL_TOKEN = "CONTROL_TOKEN"  # noqa: S105 - the name of a fault
    """A turn holds text that the model reads as a control token."""
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    """A prompt has more characters than the model could read."""

    @property
    def is_of_model(self) -> bool:
        """Whether it is the model's fault, whatever the row: every conversation fails alike."""
        return self in {self.TOKENIZER_UNUSABLE, self.NO_CHAT_TEMPLATE, self.TEMPLATE_INVALID}


class RenderingError(ValueError):
    """A conversation that a model's template cannot write, or tokenizer files that cannot be used."""

    def __init__(self, message: str, cure: str, code: RenderingCode = RenderingCode.TOKENIZER_UNUSABLE) -> None:
        """Takes what is wrong and what to do about it, one sentence each, and the kind of fault."""
        super().__init__(f"{message} {cure}")
        self.message = message
        self.cure = cure
        self.code = code


class OverlongRow(ValueError):
    """A row with more tokens than allowed, under the policy that refuses such rows."""

    def __init__(self, line: int, tokens: int, max_tokens: int) -> None:
        """Takes the row's line and both lengths in tokens."""
        super().__init__(
            f"line {line}: The row has {tokens} tokens, but at most {max_tokens} are allowed. Shorten it, raise "
            "`data.max_tokens`, or choose another policy for overlong rows."
        )
        self.line = line
        self.tokens = tokens
        self.max_tokens = max_tokens


class MissingExtra(ImportError):
    """A package of an extra is not installed."""

    def __init__(self, package: str, purpose: str, extra: str = "data") -> None:
        """Takes the missing package, what needs it, and the extra that brings it."""
        super().__init__(f"{purpose} needs the package {package}: pip install 'tuneforge[{extra}]'", name=package)
