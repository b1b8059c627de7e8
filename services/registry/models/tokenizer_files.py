"""A model's tokenizer and chat template: of bounded size, loadable, quick on hostile text, and without tricks.

The library that reads tokenizers is native code that runs patterns from the file, so all of this happens in the
examiner's process, under an alarm that ends it: the parent then knows that it was the tokenizer.
"""

from pathlib import Path
from typing import Any

from services.registry.folder import Folder
from services.registry.models.configuration import parse_json
from services.registry.models.problems import Code, Problems

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
LARGEST_BYTES = 64 * 1024 * 1024
"""Of `tokenizer.json`; the largest real ones have 35 MB."""
LARGEST_TEMPLATE_BYTES = 1024 * 1024
MOST_PIECES = 2_000_000
"""Of a vocabulary, and merges: five times what the largest real ones have."""
MOST_ADDED = 100_000
_KINDS = ("BPE", "WordPiece", "Unigram", "WordLevel")
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
_PROBES = (
    "Plain words, 12345 and ünïcödé.",
    "a" * 3000 + "!",
    "aA" * 1500 + "!",
    " " * 3000 + "x",
    "'s'S't" * 600,
    "0" * 3000 + "a",
    "\n\r\t " * 800,
    "é" * 1500 + "\u0000",
)
"""Texts on which a pattern that backtracks without end shows it."""


def examine_tokenizer(folder: Folder, place: Path, vocab_size: int | None, problems: Problems) -> None:
    """Checks tokenizer and template of a folder.

    Args:
        folder: The files; nothing is said of a missing `tokenizer.json`.
        place: An empty folder, in which they get links by their names.
        vocab_size: Of the model's configuration; None when it is not known.
        problems: Takes what is wrong.
    """
    if TOKENIZER not in folder:
        return
    content = _read(folder, problems)
    if content is None:
        return
    ids = _ids(content, problems)
    if ids is None:
        return
    highest = max(ids.values(), default=-1)
    if vocab_size is not None and highest >= vocab_size:
        sentence = (
            f"Has the token number {highest}, but config.json a vocab_size of {vocab_size}. Give those of one model."
        )
        problems.add(TOKENIZER, sentence, Code.SHAPE_MISMATCH)
    _check_special(folder, ids, problems)
    if not problems.found:
        _load_and_probe(folder, place, problems)


def _read(folder: Folder, problems: Problems) -> dict[str, Any] | None:
    file = folder.paths[TOKENIZER]
    if (size := file.stat().st_size) > LARGEST_BYTES:
        problems.add(TOKENIZER, f"Has {size} bytes; at most {LARGEST_BYTES} are taken.", Code.TOKENIZER_REFUSED)
        return None
    try:
        content = parse_json(file.read_bytes())
    except ValueError:
        problems.add(TOKENIZER, "Is not JSON in UTF-8. Save it with `save_pretrained`.", Code.TOKENIZER_REFUSED)
        return None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        problems.add(TOKENIZER, "Is no tokenizer. Save it with `save_pretrained`.", Code.TOKENIZER_REFUSED)
        return None
    return content


def _ids(content: dict[str, Any], problems: Problems) -> dict[str, int] | None:
    """Returns token -> number; None when the counts are out of bounds or the form is not known."""
    model = content["model"]
    kind = model.get("type", "BPE")
    vocabulary, merges = model.get("vocab", {}), model.get("merges") or []
    added = content.get("added_tokens") or []
    pieces = len(vocabulary) if isinstance(vocabulary, dict | list) else 0
    for what, count, most in (
        ("entries in its vocabulary", pieces, MOST_PIECES),
        ("merges", len(merges) if isinstance(merges, list) else 0, MOST_PIECES),
        ("added tokens", len(added) if isinstance(added, list) else 0, MOST_ADDED),
    ):
        if count > most:
            problems.add(TOKENIZER, f"Has {count} {what}; at most {most} are taken.", Code.TOKENIZER_REFUSED)
            return None
    if kind not in _KINDS:
        sentence = f"Is of the kind {str(kind)[:40]!r}; known are {', '.join(_KINDS)}."
        problems.add(TOKENIZER, sentence, Code.TOKENIZER_REFUSED)
        return None
    try:
        if kind == "Unigram":
            ids = {str(piece[0]): number for number, piece in enumerate(vocabulary)}
        else:
            ids = {str(piece): int(number) for piece, number in vocabulary.items()}
        ids |= {str(token["content"]): int(token["id"]) for token in added}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        sentence = "Has a vocabulary that is not from token to number. Save it with `save_pretrained`."
        problems.add(TOKENIZER, sentence, Code.TOKENIZER_REFUSED)
        return None
    return ids


def _check_special(folder: Folder, ids: dict[str, int], problems: Problems) -> None:
    """Refuses a configuration that names special tokens which the tokenizer does not have."""
    if CONFIG not in folder:
        return
    try:
        content = parse_json(folder.paths[CONFIG].read_bytes()[:LARGEST_TEMPLATE_BYTES])
    except ValueError:
        return  # told with the other configurations
    if not isinstance(content, dict):
        return
    for name in _NAMED:
        value = content.get(name)
        token = value.get("content") if isinstance(value, dict) else value
        if isinstance(token, str) and token and token not in ids:
            sentence = f"Names {token[:60]!r} as {name}, which {TOKENIZER} does not have. Save both together."
            problems.add(CONFIG, sentence, Code.TOKENIZER_REFUSED)


def _load_and_probe(folder: Folder, named: Path, problems: Problems) -> None:
    """Loads the tokenizer, lets it cut hostile texts, and lets the template write one conversation."""
    from tuneforge.data.faults import RenderingError
    from tuneforge.data.rendering import ChatFormat
    from tuneforge.data.vocabulary import load_tokenizer

    for path, file in folder.paths.items():
        if "/" not in path and path.endswith((".json", ".jinja")):
            (named / path).symlink_to(file)
    try:
        tokenizer = load_tokenizer(named)
        for probe in _PROBES:
            tokenizer.encode(probe)
    except RenderingError as error:
        problems.add(TOKENIZER, f"{error}"[:400], Code.TOKENIZER_REFUSED)
        return
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - where its patterns give up, the native library panics like this
        sentence = f"Does not cut a text into tokens: {str(error)[:200]}. Save it with `save_pretrained`."
        problems.add(TOKENIZER, sentence, Code.TOKENIZER_REFUSED)
        return
    if not (named / CONFIG).is_file():
        return  # without it nothing says which tokens are special: a model for embeddings may do without
    try:
        chat_format = ChatFormat.load(named, tokenizer)
    except (RenderingError, UnicodeError) as error:
        problems.add(CONFIG, f"{error}"[:400], Code.TOKENIZER_REFUSED)
        return
    _probe_template(chat_format, problems)


def _probe_template(chat_format: Any, problems: Problems) -> None:
    from tuneforge.data.faults import RenderingError
    from tuneforge.data.rows import Turn

    if chat_format.template is None:
        return
    if len(chat_format.template.encode()) > LARGEST_TEMPLATE_BYTES:
        problems.add(TEMPLATE, f"Has more than {LARGEST_TEMPLATE_BYTES} bytes.", Code.TEMPLATE_REFUSED)
        return
    turns = [Turn(role="user", content="Hello"), Turn(role="assistant", content="Hi"), Turn(role="user", content="Bye")]
    try:
        chat_format.render_prompt(turns)
    except RenderingError as error:
        problems.add(TEMPLATE, f"{error}"[:400], Code.TEMPLATE_REFUSED)
