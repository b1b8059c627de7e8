"""What can be wrong with a model's tokenizer files, with its chat template, or with a conversation for it."""


class RenderingError(ValueError):
    """A conversation that a model's template cannot write, or tokenizer files that cannot be used."""

    def __init__(self, message: str, cure: str) -> None:
        """Takes what is wrong and what to do about it, one sentence each."""
        super().__init__(f"{message} {cure}")
        self.message = message
        self.cure = cure


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
    """A package of the extra `[data]` is not installed."""

    def __init__(self, package: str, purpose: str) -> None:
        """Takes the missing package and what needs it."""
        super().__init__(f"{purpose} needs the package {package}: pip install 'tuneforge[data]'", name=package)
