"""Which files a model version may have, and what they must say: safetensors weights, no code, a known architecture.

The rule is an allow-list: what is not known to be harmless data is refused, with its name and what to do instead. All
problems of a folder are told at once. Runs in a process of its own (`examiner`), so nothing heavy is imported here.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from services.registry.folder import Folder
from services.registry.models.configuration import (
    CONFIG,
    DTYPES,
    LARGEST_CONFIG_BYTES,
    Configuration,
    examine_configuration,
    parse_json,
    refuse_code,
    refuse_modules,
)
from services.registry.models.expected_tensors import expected
from services.registry.models.problems import Code, Problems
from services.registry.models.shapes import Architecture, Tensor
from services.registry.models.weights import WEIGHTS, check_shapes, placed_tensors, read_weights, scan
from tuneforge.architectures import SUPPORTED_ARCHITECTURES
from tuneforge.report_page import PREAMBLE, REPORT

TOKENIZER = "tokenizer.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MERGED_ADAPTER = "adapters/"
"""Folder of a merged model with the files of the adapter that is in it."""
INITIALIZATION = "initialization.json"
"""Makes a configuration without weights a model: `{"seed": 7}`."""
LARGEST_SEED = 2**63 - 1

# Formats that run code when they are loaded, or are code.
_DANGEROUS = frozenset({
    ".bin", ".ckpt", ".dill", ".dll", ".dylib", ".exe", ".h5", ".joblib", ".keras", ".msgpack", ".npy", ".npz",
    ".pickle", ".pkl", ".pt", ".pt2", ".pth", ".py", ".pyc", ".pyd", ".sh", ".so",
})  # fmt: skip
_HARMLESS = frozenset({".jinja", ".json", ".jsonl", ".md", ".model", ".safetensors", ".txt"})
_HARMLESS_NAMES = frozenset({".gitattributes", "LICENSE", "NOTICE", "README", "USE_POLICY"})


def examine_model(folder: Folder, problems: Problems) -> Architecture:
    """Checks the files of a whole model and returns what they say of its architecture, if there was no problem."""
    _check_kinds(folder, problems)
    if ADAPTER_CONFIG in folder:
        sentence = "Is that of an adapter, not of a model. Give the base that it was trained on, or merge it first."
        problems.add(ADAPTER_CONFIG, sentence, Code.ADAPTER_REFUSED)
    if TOKENIZER not in folder:
        sentence = "Is missing. Save the model's fast tokenizer beside it with `save_pretrained`."
        problems.add(TOKENIZER, sentence, Code.FILE_MISSING)
    content = read_object(folder, CONFIG, problems)
    configuration = examine_configuration(content, problems) if content is not None else None
    _refuse_code(folder, problems)
    seed = _seed(folder, problems)
    if seed is None:
        before = len(problems.found)
        tensors = read_weights(folder, problems, beside={MERGED_ADAPTER + ADAPTER_WEIGHTS})
        _examine_merged(folder, problems)
        if configuration is not None and len(problems.found) == before:
            check_shapes(configuration, tensors, problems)
    else:
        tensors = _described(configuration, problems)
    config_json = folder.paths[CONFIG].read_text(encoding="utf-8") if content is not None else ""
    return Architecture(
        class_name=configuration.class_name if configuration else "",
        config_json=config_json,
        tensors=tuple(tensors),
        seed=seed,
    )


def _examine_merged(folder: Folder, problems: Problems) -> None:
    """Checks the adapter that a merged model carries: nothing is computed with it, but people take it out."""
    path = MERGED_ADAPTER + ADAPTER_WEIGHTS
    if path in folder:
        read_object(folder, MERGED_ADAPTER + ADAPTER_CONFIG, problems)
        scan(folder.paths[path], path, placed_tensors(folder.paths[path], path, problems), problems)


def examine_adapter(folder: Folder, problems: Problems) -> tuple[dict[str, Any], list[Tensor]]:
    """Checks the files of a LoRA adapter and returns its configuration and its own tensors."""
    _check_kinds(folder, problems)
    config = read_object(folder, ADAPTER_CONFIG, problems)
    if config is not None and config.get("peft_type") != "LORA":
        sentence = f"Has peft_type {str(config.get('peft_type'))[:40]!r}; only LORA is taken."
        problems.add(ADAPTER_CONFIG, sentence, Code.ADAPTER_REFUSED)
    _refuse_code(folder, problems)
    for path in sorted(path for path in folder.paths if path.endswith(".safetensors") and path != ADAPTER_WEIGHTS):
        problems.add(path, f"Is not {ADAPTER_WEIGHTS}. Leave it out.", Code.FORMAT_NOT_ALLOWED)
    if ADAPTER_WEIGHTS not in folder:
        problems.add(ADAPTER_WEIGHTS, "Is missing. Save the adapter with safetensors.", Code.FILE_MISSING)
        return config or {}, []
    placed = placed_tensors(folder.paths[ADAPTER_WEIGHTS], ADAPTER_WEIGHTS, problems)
    scan(folder.paths[ADAPTER_WEIGHTS], ADAPTER_WEIGHTS, placed, problems)
    return config or {}, [each.tensor for each in placed]


def read_object(folder: Folder, path: str, problems: Problems) -> dict[str, Any] | None:
    """Returns a small JSON object of a folder; a fault of it becomes a problem."""
    if path not in folder:
        problems.add(path, "Is missing. Give the folder as `save_pretrained` writes it.", Code.FILE_MISSING)
        return None
    content = _read_json(folder, path, problems)
    if content is not None and not isinstance(content, dict):
        sentence = "Is not a JSON object. Save it with `save_pretrained`."
        problems.add(path, sentence, Code.CONFIG_NOT_ALLOWED)
        return None
    return content


def _read_json(folder: Folder, path: str, problems: Problems) -> Any:
    size = folder.paths[path].stat().st_size
    if size > LARGEST_CONFIG_BYTES:
        problems.add(path, f"Has {size} bytes; at most {LARGEST_CONFIG_BYTES} are taken.", Code.CONFIG_NOT_ALLOWED)
        return None
    try:
        return parse_json(folder.paths[path].read_bytes())
    except ValueError:
        problems.add(path, "Is not JSON in UTF-8. Save it with `save_pretrained`.", Code.CONFIG_NOT_ALLOWED)
        return None


def _check_kinds(folder: Folder, problems: Problems) -> None:
    for path in sorted(folder.paths):
        name = PurePosixPath(path)
        suffix = name.suffix.lower()
        if suffix in _DANGEROUS:
            sentence = f"Is refused: {suffix} files can run code when loaded. Give safetensors weights only."
            problems.add(path, sentence, Code.FORMAT_NOT_ALLOWED)
        elif path == REPORT:
            _check_report(folder.paths[path], problems)
        elif suffix not in _HARMLESS and name.name not in _HARMLESS_NAMES:
            problems.add(path, "Is not a file that a model needs. Leave it out.", Code.FORMAT_NOT_ALLOWED)


def _check_report(file: Path, problems: Problems) -> None:
    """Takes an HTML file only if it forbids the browser to run anything that may stand in it."""
    with file.open("rb") as content:
        begins = content.read(len(PREAMBLE.encode())) == PREAMBLE.encode()
    if not begins:
        sentence = "Is not a report as runs write it, which can run nothing in a browser. Leave it out."
        problems.add(REPORT, sentence, Code.FORMAT_NOT_ALLOWED)


def _refuse_code(folder: Folder, problems: Problems) -> None:
    """Refuses what names Python code, in every configuration that a loader reads, in whatever folder."""
    for path in sorted(folder.paths):
        name = PurePosixPath(path).name
        if name == "modules.json":
            refuse_modules(path, _read_json(folder, path, problems), problems)
        elif name.endswith("config.json"):
            is_told = path in {
                CONFIG,
                ADAPTER_CONFIG,
            }  # whoever reads these two for their content tells of their faults
            content = _read_json(folder, path, Problems() if is_told else problems)
            refuse_code(path, content, problems)


def _seed(folder: Folder, problems: Problems) -> int | None:
    """Returns the seed of a configuration alone; None for a model with weights."""
    if INITIALIZATION not in folder:
        return None
    content = read_object(folder, INITIALIZATION, problems)
    seed = (content or {}).get("seed")
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED or set(content or {}) != {"seed"}:
        sentence = f'Is not {{"seed": N}} with a whole number from 0 to {LARGEST_SEED}.'
        problems.add(INITIALIZATION, sentence, Code.CONFIG_NOT_ALLOWED)
        seed = 0
    for path in sorted(path for path in folder.paths if path.endswith(".safetensors")):
        sentence = f"Is beside {INITIALIZATION}: weights are given or drawn, not both. Leave one of them out."
        problems.add(path, sentence, Code.FORMAT_NOT_ALLOWED)
    return seed


def _described(configuration: Configuration | None, problems: Problems) -> list[Tensor]:
    """Returns the weights that a configuration alone describes."""
    if configuration is None:
        return []
    if configuration.class_name not in SUPPORTED_ARCHITECTURES:
        sentence = f"A {configuration.class_name} cannot be trained yet, so it needs weights. Give them as {WEIGHTS}."
        problems.add(CONFIG, sentence, Code.CONFIG_NOT_ALLOWED)
        return []
    values = configuration.values
    dtype = DTYPES[values.get("dtype") or values.get("torch_dtype") or "float32"]
    required = expected(configuration.class_name, values).required
    return [Tensor(name=name, shape=required[name], dtype=dtype) for name in sorted(required)]
