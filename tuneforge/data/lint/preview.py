"""A row token by token: what is learned, what is only read, what the policy for overlong rows cuts off.

Drawn from `masks.mark` and `masks.fit`, the functions by which the trainer makes its labels.
"""

import dataclasses
import enum
from typing import TYPE_CHECKING

from tuneforge.data.faults import OverlongRow
from tuneforge.data.masks import MarkedRow, fit, mark
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.rows import Row
from tuneforge.specs.spec import OverlongPolicy

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenFate(enum.StrEnum):
    """What becomes of a token."""

    LEARNED = "LEARNED"
    """It is a label: the loss counts it."""
    READ = "READ"
    """The model reads it and does not learn to write it."""
    CUT = "CUT"
    """It is beyond the limit, or its row is left out."""


class RowFate(enum.StrEnum):
    """What becomes of a row."""

    KEPT = "KEPT"
    TRUNCATED = "TRUNCATED"
    """It loses its end."""
    DROPPED = "DROPPED"
    """It is left out: too long, or nothing learned is left of it."""
    REFUSED = "REFUSED"
    """A run that meets it fails: it is too long, and the policy is `refuse`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PreviewToken:
    """One token."""

    id: int
    text: str
    """The characters that it adds; those of all tokens together are the text that the model reads. Empty for a token
    that is the beginning of a character whose last token holds it."""
    fate: TokenFate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowPreview:
    """One row as the trainer sees it."""

    row_id: str
    file: str
    line: int
    fate: RowFate
    tokens: tuple[PreviewToken, ...]
    """All tokens of the row, those that are cut off too."""
    template_sha256: str
    """SHA-256 of the chat template's source."""

    @property
    def num_learned(self) -> int:
        """How many tokens are learned."""
        return sum(token.fate is TokenFate.LEARNED for token in self.tokens)

    @property
    def labels(self) -> tuple[int, ...]:
        """Positions of the learned tokens, as the trainer counts them."""
        return tuple(place for place, token in enumerate(self.tokens) if token.fate is TokenFate.LEARNED)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LengthPolicy:
    """How long rows may be, as in the `data` section of a spec."""

    max_tokens: int
    """Most tokens of a row, >= 1."""
    overlong: OverlongPolicy = OverlongPolicy.DROP


def preview(
    row: Row, tokenizer: "Tokenizer", chat_format: ChatFormat, policy: LengthPolicy, file: str = ""
) -> RowPreview:
    """Returns what the trainer makes of a row.

    Raises:
        RenderingError: the template cannot write the row.
    """
    marked = mark(row, tokenizer, chat_format)
    fate, kept, supervised = RowFate.KEPT, len(marked.ids), marked.supervised
    try:
        encoded = fit(marked, row.line, policy.max_tokens, policy.overlong)
    except OverlongRow:
        fate, kept = RowFate.REFUSED, 0
    else:
        if encoded is None:
            fate, kept = RowFate.DROPPED, 0
        else:
            fate = RowFate.TRUNCATED if encoded.is_cut else RowFate.KEPT
            kept, supervised = len(encoded.ids), encoded.supervised
    pieces = _pieces(marked, tokenizer)
    tokens = tuple(
        PreviewToken(
            id=number,
            text=pieces[place],
            fate=TokenFate.CUT if place >= kept else TokenFate.LEARNED if supervised[place] else TokenFate.READ,
        )
        for place, number in enumerate(marked.ids)
    )
    return RowPreview(
        row_id=row.id, file=file, line=row.line, fate=fate, tokens=tokens, template_sha256=chat_format.sha256
    )


def _pieces(marked: MarkedRow, tokenizer: "Tokenizer") -> list[str]:
    """Returns the characters that each token adds; what stands between two tokens belongs to the later one."""
    pieces = [tokenizer.id_to_token(number) or "" for number in marked.ids[: marked.prefix]]
    written = 0
    offsets = marked.offsets[marked.prefix :]
    for place, (_, end) in enumerate(offsets):
        # Tokens that share a character all have its whole span: the last of them shows it.
        is_shared = place + 1 < len(offsets) and offsets[place + 1][1] == end and end > written
        until = written if is_shared else max(end, written)
        pieces.append(marked.text[written:until])
        written = until
    if len(pieces) > marked.prefix:
        pieces[-1] += marked.text[written:]
    return pieces
