"""What a model's configuration may say: read by our own schema before any library sees it.

Known classes only, numbers within the bounds of real models, nothing that names code at any depth.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.registry.models.problems import Code, Problems
from tuneforge.architectures import KNOWN_ARCHITECTURES

CONFIG = "config.json"
LARGEST_CONFIG_BYTES = 1024 * 1024
"""Of `config.json` and its like; real ones have a few kilobytes."""
_DEEPEST = 32
_CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})
"""Keys that make a loader run code that comes with a model; refused at any depth unless empty or false."""
_MODULES = frozenset({
    "sentence_transformers.models.Dense", "sentence_transformers.models.Normalize",
    "sentence_transformers.models.Pooling", "sentence_transformers.models.Transformer",
})  # fmt: skip
"""Classes that `modules.json` of an embedding model may name."""
DTYPES: Mapping[str, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Number formats of a configuration -> as safetensors names them."""

# Name -> (least, most): far outside of every real model, near enough that arithmetic over them stays small.
_BOUNDS: Mapping[str, tuple[int, int]] = {
    "vocab_size": (1, 2**24),
    "hidden_size": (1, 2**17),
    "n_embd": (1, 2**17),
    "intermediate_size": (1, 2**20),
    "n_inner": (1, 2**20),
    "num_hidden_layers": (1, 1024),
    "n_layer": (1, 1024),
    "num_attention_heads": (1, 1024),
    "n_head": (1, 1024),
    "num_key_value_heads": (1, 1024),
    "head_dim": (1, 2**14),
    "max_position_embeddings": (1, 2**27),
    "n_positions": (1, 2**27),
    "type_vocab_size": (1, 2**16),
}
_NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_NEEDED_GPT2 = ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A configuration that was read."""

    class_name: str
    values: Mapping[str, Any]


def examine_configuration(content: Mapping[str, Any], problems: Problems) -> Configuration | None:
    """Checks `config.json` of a model; None when its shapes cannot be told."""
    named = content.get("architectures")
    class_name = named[0] if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) else ""
    before = len(problems.found)
    if not class_name:
        _refuse(problems, "Does not name exactly one class in `architectures`. Save it with `save_pretrained`.")
    elif class_name not in KNOWN_ARCHITECTURES:
        known = ", ".join(KNOWN_ARCHITECTURES)
        _refuse(problems, f"Has the architecture {class_name[:80]!r}, which is not supported. Supported are {known}.")
    if content.get("quantization_config"):
        _refuse(
            problems,
            "Has `quantization_config`. Import the unquantised weights; runs quantise them by themselves.",
        )
    for name in ("dtype", "torch_dtype"):
        if (dtype := content.get(name)) is not None and dtype not in DTYPES:
            _refuse(problems, f"Has the {name} {str(dtype)[:40]!r}; known are {', '.join(DTYPES)}.")
    for sentence in _number_problems(content, class_name):
        _refuse(problems, sentence)
    if len(problems.found) > before:
        return None
    return Configuration(class_name=class_name, values=content)


def refuse_code(path: str, content: Any, problems: Problems) -> None:
    """Refuses what names code, at whatever depth of a JSON file it stands."""
    for where in sorted(set(_code_places(content))):
        problems.add(
            path,
            f"Has `{where[:200]}`, which loads code that comes with the model. Remove it; code is never run.",
            Code.CONFIG_NOT_ALLOWED,
        )


def refuse_modules(path: str, content: Any, problems: Problems) -> None:
    """Refuses classes of `modules.json` that are not among the known ones of an embedding model."""
    entries = content if isinstance(content, list) else [None]
    for entry in entries:
        kind = entry.get("type") if isinstance(entry, dict) else None
        if kind not in _MODULES:
            problems.add(
                path,
                f"Names the module {str(kind)[:80]!r}; known are {', '.join(sorted(_MODULES))}. Remove it.",
                Code.CONFIG_NOT_ALLOWED,
            )


def parse_json(raw: bytes) -> Any:
    """Reads JSON in UTF-8.

    Raises:
        ValueError: It is none, or is nested too deeply.
    """
    try:
        return json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _number_problems(content: Mapping[str, Any], class_name: str) -> Iterator[str]:
    for name in _NEEDED_GPT2 if class_name.startswith("GPT2") else _NEEDED:
        if content.get(name) is None:
            yield f"Lacks `{name}`, so the model cannot be rebuilt. Save it with `save_pretrained`."
    for name, (least, most) in _BOUNDS.items():
        value = content.get(name)
        if value is None:
            continue
        if type(value) is not int or not least <= value <= most:
            yield f"Has {name} = {str(value)[:40]}; give a whole number from {least} to {most}."
    width, heads = content.get("hidden_size", content.get("n_embd")), content.get("num_attention_heads")
    heads = content.get("n_head") if heads is None else heads
    groups = content.get("num_key_value_heads")
    if type(width) is int and type(heads) is int and heads > 0 and not content.get("head_dim") and width % heads:
        yield f"Has a width of {width} and {heads} heads, which do not divide it. Save it with `save_pretrained`."
    if type(heads) is int and type(groups) is int and groups > 0 and heads % groups:
        yield f"Has {heads} heads in {groups} groups, which do not divide them. Save it with `save_pretrained`."


def _code_places(content: Any, place: str = "", depth: int = 0) -> Iterator[str]:
    if depth > _DEEPEST:
        yield f"{place} (nested more than {_DEEPEST} levels deep)"
        return
    if isinstance(content, dict):
        for key, value in content.items():
            where = f"{place}.{key}" if place else str(key)
            if key in _CODE_KEYS and value not in (None, False, {}, [], ""):
                yield where
            else:
                yield from _code_places(value, where, depth + 1)
    elif isinstance(content, list):
        for value in content:
            yield from _code_places(value, place, depth + 1)


def _refuse(problems: Problems, sentence: str) -> None:
    problems.add(CONFIG, sentence, Code.CONFIG_NOT_ALLOWED)
