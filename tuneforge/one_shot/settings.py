"""What one run is asked for: flags, with a JSON file on top, checked as a whole.

The names are those that scripts for this kind of command use already; a value in the file wins over its flag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

METHODS: Final = ("lora", "qlora", "full")
FORMATS: Final = ("auto", "jsonl", "csv", "hf")
ADAPTED_LAYERS: Final = ("q_proj", "v_proj", "k_proj", "o_proj")
"""What gets adapters where nothing is said, if the model has layers of these names."""
MAX_SEQ_LENGTH: Final = 2048
WARMUP_STEPS: Final = 100
LEARNING_RATES: Final = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}

_CODE: Final = (
    "true is refused: a model's own code would run on this machine. Convert the model to an architecture that "
    "transformers knows, or leave it out."
)


class SettingsFault(Exception):
    """Settings are wrong; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """One run. What is None has a default that depends on the rest."""

    model_id: str = ""
    """A folder, an id of the hub, or an address."""
    dataset_path: str = ""
    """A file, a folder, an id of the hub, or an address."""
    output_dir: str = ""
    method: str = "lora"
    dataset_format: str = "auto"
    dataset_config: str = ""
    """Of rows whose card names several configurations: which to take; empty: the default one."""
    learning_rate: float | None = None
    """Peak; None: that of the method."""
    batch_size: int = 4
    """Rows computed at once on a device."""
    epochs: float = 3.0
    gradient_accumulation_steps: int = 1
    max_seq_length: int | None = None
    """Longest row in tokens; None: 2048, or the model's limit."""
    warmup_steps: int | None = None
    """None: 5 percent of the steps, at most 100."""
    logging_steps: int = 10
    save_steps: int = 500
    eval_steps: int | None = None
    save_total_limit: int = 3
    fp16: bool = False
    bf16: bool = False
    gradient_checkpointing: bool = False
    seed: int = 42
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.05
    target_modules: tuple[str, ...] = ()
    """Empty: `ADAPTED_LAYERS`, or all linear layers of a model without these."""
    validation_split: float = 0.1
    """Share of the rows that is held back and measured on."""
    ignored: tuple[str, ...] = field(default=(), compare=False)
    """What was given and changes nothing here, as sentences."""

    @property
    def rate(self) -> float:
        """The learning rate."""
        return LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate

    @property
    def rows_per_step(self) -> int:
        """Rows behind one optimiser step."""
        return self.batch_size * self.gradient_accumulation_steps


Convert = Callable[[Any], Any]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("is no number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("is no whole number")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("is neither true nor false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("is no text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError("is no list of texts")
    return tuple(value)


# Key in the file -> field, and what its value must be.
_TOP: Final[Mapping[str, tuple[str, Convert]]] = {
    "model_id": ("model_id", _text),
    "dataset_path": ("dataset_path", _text),
    "output_dir": ("output_dir", _text),
    "method": ("method", _text),
    "dataset_format": ("dataset_format", _text),
    "dataset_config": ("dataset_config", _text),
}
_HYPERPARAMETERS: Final[Mapping[str, tuple[str, Convert]]] = {
    "learning_rate": ("learning_rate", _number),
    "batch_size": ("batch_size", _whole),
    "epochs": ("epochs", _number),
    "gradient_accumulation_steps": ("gradient_accumulation_steps", _whole),
    "max_seq_length": ("max_seq_length", _whole),
    "warmup_steps": ("warmup_steps", _whole),
    "logging_steps": ("logging_steps", _whole),
    "save_steps": ("save_steps", _whole),
    "eval_steps": ("eval_steps", _whole),
    "save_total_limit": ("save_total_limit", _whole),
    "fp16": ("fp16", _flag),
    "bf16": ("bf16", _flag),
    "gradient_checkpointing": ("gradient_checkpointing", _flag),
    "seed": ("seed", _whole),
    "validation_split": ("validation_split", _number),
}
_LORA: Final[Mapping[str, tuple[str, Convert]]] = {
    "r": ("lora_rank", _whole),
    "lora_alpha": ("lora_alpha", _number),
    "lora_dropout": ("lora_dropout", _number),
    "target_modules": ("target_modules", _texts),
}
_LORA_FIXED: Final[Mapping[str, tuple[Any, ...]]] = {"bias": ("none",), "task_type": ("CAUSAL_LM",)}
_QUANTIZATION_FIXED: Final[Mapping[str, tuple[Any, ...]]] = {
    "load_in_4bit": (True,),
    "load_in_8bit": (False,),
    "bnb_4bit_quant_type": ("nf4",),
    "bnb_4bit_use_double_quant": (True,),
    "bnb_4bit_compute_dtype": ("float16", "bfloat16", "float32"),
}
_DTYPES: Final = {"float16": "fp16", "bfloat16": "bf16", "float32": "", "auto": ""}
# Sentences on what is taken and changes nothing.
_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "use_flash_attention": "use_flash_attention: attention is chosen for the device.",
    "dataloader_num_workers": "dataloader_num_workers: rows are read once and kept as tokens.",
    "output": "output: the result lies in the output folder and in the registry.",
}


def with_file(flags: RunSettings, content: object) -> RunSettings:
    """Returns settings with those of a configuration file on top.

    Args:
        flags: From the command line.
        content: The file as JSON.

    Raises:
        SettingsFault: It has keys that are not known, or values that are not possible; all are listed.
    """
    if not isinstance(content, dict):
        raise SettingsFault(["--config: the file is no JSON object."])
    reader = _FileReader()
    reader.take("", {key: value for key, value in content.items() if key in _TOP}, _TOP)
    for key, value in content.items():
        if key not in _TOP:
            reader.take_other(key, value)
    if reader.faults:
        raise SettingsFault(reader.faults)
    return replace(flags, **reader.found, ignored=(*flags.ignored, *reader.ignored))


class _FileReader:
    """Collects what a file sets and what is wrong with it."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.faults: list[str] = []
        self.ignored: list[str] = []

    def take(self, path: str, content: object, known: Mapping[str, tuple[str, Convert]]) -> None:
        """Takes an object whose keys are fields."""
        if not isinstance(content, dict):
            self.faults.append(f"--config: {path.rstrip('.')} is no object.")
            return
        for key, value in content.items():
            if key not in known:
                self.faults.append(f"--config: {path}{key} is not known; known are {', '.join(sorted(known))}.")
                continue
            name, convert = known[key]
            if value is None:
                continue
            try:
                self.found[name] = convert(value)
            except TypeError as error:
                self.faults.append(f"--config: {path}{key} {error}: {value!r}.")

    def fix(self, path: str, content: object, allowed: Mapping[str, tuple[Any, ...]]) -> None:
        """Takes an object whose values are what they are here, or else not possible."""
        if not isinstance(content, dict):
            self.faults.append(f"--config: {path.rstrip('.')} is no object.")
            return
        for key, value in content.items():
            if key not in allowed:
                self.faults.append(f"--config: {path}{key} is not known; known are {', '.join(sorted(allowed))}.")
            elif value is not None and value not in allowed[key]:
                choice = " or ".join(repr(each) for each in allowed[key])
                self.faults.append(f"--config: {path}{key} is {value!r}; it can be {choice} here.")

    def take_other(self, key: str, value: object) -> None:
        """Takes a key that stands for no single field."""
        if key == "hyperparameters":
            self.take("hyperparameters.", value, _HYPERPARAMETERS)
        elif key == "lora_config" and isinstance(value, dict):
            self.take("lora_config.", {name: each for name, each in value.items() if name not in _LORA_FIXED}, _LORA)
            self.fix("lora_config.", {name: each for name, each in value.items() if name in _LORA_FIXED}, _LORA_FIXED)
        elif key == "quantization_config":
            self.fix("quantization_config.", {} if value is None else value, _QUANTIZATION_FIXED)
        elif key == "dataset":
            places = {"path": ("dataset_path", _text), "format": ("dataset_format", _text)}
            self.take("dataset.", {"path": value} if isinstance(value, str) else value, places)
        else:
            self._take_word(key, value)

    def _take_word(self, key: str, value: object) -> None:
        if key == "trust_remote_code":
            if value:
                self.faults.append(f"--config: trust_remote_code {_CODE}")
        elif key == "torch_dtype":
            if not isinstance(value, str) or value not in _DTYPES:
                self.faults.append(f"--config: torch_dtype is {value!r}; it can be {', '.join(_DTYPES)}.")
            elif word := _DTYPES[value]:
                self.found.setdefault(word, True)
        elif key in _WITHOUT_EFFECT:
            self.ignored.append(_WITHOUT_EFFECT[key])
        else:
            others = ("hyperparameters", "lora_config", "quantization_config", "dataset", "trust_remote_code")
            known = ", ".join(sorted([*_TOP, *others, "torch_dtype", *_WITHOUT_EFFECT]))
            self.faults.append(f"--config: {key} is not known; known are {known}.")


_ABOVE_ZERO: Final = ("learning_rate", "epochs", "lora_alpha")
_LEAST: Final = {
    "batch_size": 1,
    "gradient_accumulation_steps": 1,
    "lora_rank": 1,
    "max_seq_length": 8,
    "warmup_steps": 0,
    "logging_steps": 1,
    "save_steps": 1,
    "eval_steps": 1,
    "save_total_limit": 1,
    "seed": 0,
}


def check(settings: RunSettings) -> None:
    """Looks at everything that can be known before a service is asked.

    Raises:
        SettingsFault: Something is missing or out of range; all of it is listed, by flag.
    """
    required = ("model_id", "dataset_path", "output_dir")
    faults = [f"{_flag_of(name)} is required." for name in required if not getattr(settings, name)]
    for name, choice in (("method", METHODS), ("dataset_format", FORMATS)):
        if getattr(settings, name) not in choice:
            faults.append(f"{_flag_of(name)} is {getattr(settings, name)!r}: use {', '.join(choice)}.")
    faults += _out_of_range(settings)
    if not 0 <= settings.lora_dropout < 1:
        faults.append(f"lora_dropout is {settings.lora_dropout}: use 0 or more, and less than 1.")
    if not 0 <= settings.validation_split <= 0.5:
        faults.append(f"--validation-split is {settings.validation_split}: use 0 to 0.5.")
    if settings.fp16 and settings.bf16:
        faults.append("fp16 and bf16 exclude each other: choose one.")
    if faults:
        raise SettingsFault(faults)


def _out_of_range(settings: RunSettings) -> list[str]:
    faults = []
    for name in _ABOVE_ZERO:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            faults.append(f"{_flag_of(name)} is {value}: use a number above 0.")
    for name, least in _LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            faults.append(f"{_flag_of(name)} is {value}: use {least} or more.")
    return faults


def _flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"
