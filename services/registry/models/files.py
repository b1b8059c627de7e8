"""Which files a model version may have, and what they must say: safetensors weights, no code, a supported architecture.

The rule is an allow-list: what is not known to be harmless data is refused, with its name and what to do instead. All
problems of a folder are told at once. Reads headers and small JSON files only.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from services.grpckit.errors import FieldViolation, Reason, invalid_fields
from services.registry.manifests import listed
from services.registry.models.resources import Architecture, Tensor
from services.registry.models.safetensors_header import MalformedFile, read_tensors
from tuneforge.architectures import SUPPORTED_ARCHITECTURES

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

LARGEST_CONFIG_BYTES = 1024 * 1024
"""Of `config.json` and its like; real ones have a few kilobytes."""
LARGEST_INDEX_BYTES = 16 * 1024 * 1024
MOST_TENSORS = 20_000
"""Of one model: ten times what the largest supported ones have, and their shapes still fit into one answer."""

# Formats that run code when they are loaded, or are code.
_DANGEROUS = frozenset({
    ".bin", ".ckpt", ".dill", ".dll", ".dylib", ".exe", ".h5", ".joblib", ".keras", ".msgpack", ".npy", ".npz",
    ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".pyd", ".sh", ".so",
})  # fmt: skip
_HARMLESS = frozenset({".jinja", ".json", ".jsonl", ".md", ".model", ".safetensors", ".txt"})
_HARMLESS_NAMES = frozenset({".gitattributes", "LICENSE", "NOTICE", "README", "USE_POLICY"})


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of a version: path in the manifest -> where its blob lies."""

    paths: Mapping[str, Path]

    def __contains__(self, name: str) -> bool:
        return name in self.paths


class _Problems:
    """Collects what is wrong, one entry a file and rule."""

    def __init__(self) -> None:
        self.found: list[FieldViolation] = []

    def add(self, path: str, sentence: str) -> None:
        self.found.append(FieldViolation(path, sentence))

    def raise_any(self) -> None:
        if self.found:
            raise invalid_fields(listed(self.found), reason=Reason.INVALID_MODEL)


def examine_model(folder: Folder) -> Architecture:
    """Checks the files of a whole model and returns what they say of its architecture.

    Raises:
        ServiceError: `INVALID_MODEL` with all problems by file.
    """
    problems = _Problems()
    _check_kinds(folder, problems)
    if ADAPTER_CONFIG in folder:
        problems.add(ADAPTER_CONFIG, "Is that of an adapter, not of a model. Merge it into its base, then import that.")
    if TOKENIZER not in folder:
        problems.add(TOKENIZER, "Is missing. Save the model's fast tokenizer beside it with `save_pretrained`.")
    class_name, config_json = _read_config(folder, problems)
    _refuse_code(folder, problems)
    tensors = _read_weights(folder, problems)
    problems.raise_any()
    return Architecture(class_name=class_name, config_json=config_json, tensors=tuple(tensors))


def examine_adapter(folder: Folder) -> tuple[Tensor, ...]:
    """Checks the files of a LoRA adapter and returns its own tensors.

    Raises:
        ServiceError: `INVALID_MODEL` with all problems by file.
    """
    problems = _Problems()
    _check_kinds(folder, problems)
    config = _read_object(folder, ADAPTER_CONFIG, LARGEST_CONFIG_BYTES, problems)
    if config is not None and config.get("peft_type") != "LORA":
        problems.add(ADAPTER_CONFIG, f"Has peft_type {str(config.get('peft_type'))[:40]!r}; only LORA is taken.")
    _refuse_code(folder, problems)
    tensors: list[Tensor] = []
    for path in sorted(path for path in folder.paths if path.endswith(".safetensors") and path != ADAPTER_WEIGHTS):
        problems.add(path, f"Is not part of an adapter, whose weights are {ADAPTER_WEIGHTS}. Leave it out.")
    if ADAPTER_WEIGHTS in folder:
        tensors = _tensors_of(folder, ADAPTER_WEIGHTS, problems)
    else:
        problems.add(ADAPTER_WEIGHTS, "Is missing. Save the adapter with safetensors.")
    problems.raise_any()
    return tuple(tensors)


def _check_kinds(folder: Folder, problems: _Problems) -> None:
    for path in sorted(folder.paths):
        name = PurePosixPath(path)
        suffix = name.suffix.lower()
        if suffix in _DANGEROUS:
            problems.add(path, f"Is refused: {suffix} files can run code when loaded. Give safetensors weights only.")
        elif suffix not in _HARMLESS and name.name not in _HARMLESS_NAMES:
            problems.add(path, "Is not a file that a model needs. Leave it out.")


def _refuse_code(folder: Folder, problems: _Problems) -> None:
    """Refuses `auto_map`, which names Python code, in every configuration that a loader reads."""
    for path in sorted(folder.paths):
        if not path.endswith("config.json") or "/" in path:
            continue
        is_told = path in {CONFIG, ADAPTER_CONFIG}  # whoever reads these two for their content tells of their faults
        config = _read_object(folder, path, LARGEST_CONFIG_BYTES, _Problems() if is_told else problems)
        if config is not None and config.get("auto_map"):
            problems.add(
                path, "Has `auto_map`, which loads code that comes with the model. Remove it; code is never run."
            )


def _read_config(folder: Folder, problems: _Problems) -> tuple[str, str]:
    config = _read_object(folder, CONFIG, LARGEST_CONFIG_BYTES, problems)
    if config is None:
        return "", ""
    named = config.get("architectures")
    class_name = named[0] if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) else ""
    if not class_name:
        problems.add(CONFIG, "Does not name exactly one class in `architectures`. Save it with `save_pretrained`.")
    elif class_name not in SUPPORTED_ARCHITECTURES:
        known = ", ".join(SUPPORTED_ARCHITECTURES)
        problems.add(
            CONFIG, f"Has the architecture {class_name[:80]!r}, which is not supported. Supported are {known}."
        )
    if config.get("quantization_config"):
        problems.add(
            CONFIG, "Has `quantization_config`. Import the unquantised weights; runs quantise them by themselves."
        )
    return class_name, folder.paths[CONFIG].read_text(encoding="utf-8")


def _read_object(folder: Folder, path: str, largest_bytes: int, problems: _Problems) -> dict[str, Any] | None:
    if path not in folder:
        problems.add(path, "Is missing. Give the folder as `save_pretrained` writes it.")
        return None
    size = folder.paths[path].stat().st_size
    if size > largest_bytes:
        problems.add(path, f"Has {size} bytes; at most {largest_bytes} are taken.")
        return None
    try:
        content = json.loads(folder.paths[path].read_bytes().decode("utf-8"))
    except (ValueError, RecursionError):
        problems.add(path, "Is not JSON in UTF-8. Save it with `save_pretrained`.")
        return None
    if not isinstance(content, dict):
        problems.add(path, "Is not a JSON object. Save it with `save_pretrained`.")
        return None
    return content


def _read_weights(folder: Folder, problems: _Problems) -> list[Tensor]:
    shards = _shards(folder, problems)
    for path in sorted(path for path in folder.paths if path.endswith(".safetensors") and path not in shards):
        problems.add(path, f"Is neither {WEIGHTS} nor a shard that {WEIGHTS_INDEX} names. Leave it out.")
    tensors: dict[str, Tensor] = {}
    for path, indexed in sorted(shards.items()):
        found = _tensors_of(folder, path, problems)
        repeated = sorted(tensor.name for tensor in found if tensor.name in tensors)
        if repeated:
            problems.add(path, f"Has the tensor {repeated[0]!r}, which another shard has too. Save the model anew.")
        absent = sorted(indexed - {tensor.name for tensor in found})
        if absent and found:
            problems.add(path, f"Lacks the tensor {absent[0]!r} that {WEIGHTS_INDEX} names in it. Save the model anew.")
        tensors.update((tensor.name, tensor) for tensor in found)
    if len(tensors) > MOST_TENSORS:
        problems.add(WEIGHTS, f"Has {len(tensors)} tensors over all files; at most {MOST_TENSORS} are taken.")
    return [tensors[name] for name in sorted(tensors)]


def _shards(folder: Folder, problems: _Problems) -> dict[str, set[str]]:
    """Returns weight file -> names of the tensors that the index puts into it."""
    if WEIGHTS in folder:
        return {WEIGHTS: set()}
    if WEIGHTS_INDEX not in folder:
        problems.add(WEIGHTS, f"Is missing, and so is {WEIGHTS_INDEX}. Save the weights with safetensors.")
        return {}
    index = _read_object(folder, WEIGHTS_INDEX, LARGEST_INDEX_BYTES, problems)
    weight_map = (index or {}).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(path, str) for path in weight_map.values()):
        if index is not None:
            problems.add(WEIGHTS_INDEX, "Has no `weight_map` from tensor to file. Save the model anew.")
        return {}
    shards: dict[str, set[str]] = {}
    for tensor, path in weight_map.items():
        shards.setdefault(path, set()).add(tensor)
    for path in sorted(set(shards) - set(folder.paths)):
        problems.add(path[:300], f"Is named in {WEIGHTS_INDEX}, but not part of the manifest. Add it.")
        del shards[path]
    return shards


def _tensors_of(folder: Folder, path: str, problems: _Problems) -> list[Tensor]:
    try:
        tensors = read_tensors(folder.paths[path])
    except MalformedFile as error:
        problems.add(path, f"It {error}.")
        return []
    if not tensors:
        problems.add(path, "Has no tensors. Save the weights anew.")
    return tensors
