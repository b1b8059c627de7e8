"""From verified files to a model that computes.

Every byte is checked against the manifest before a model is handed out. Weights are read from safetensors only, code
that comes with a model is never run, and an architecture outside `tuneforge/architectures.py` is refused. Adapters of
lower layers are merged into the weights in order; quantisation comes last, so that it sees the merged weights.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.initialization import ATTRIBUTE, draw_model, seed_of
from services.modelkit.quantization import quantize
from tuneforge.architectures import SUPPORTED_ARCHITECTURES
from tuneforge.data.rendering import TRAINING_TIME, ChatFormat
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.specs.spec import Quantization

if TYPE_CHECKING:
    from tokenizers import Tokenizer

transformers_logging.disable_progress_bar()
logging.getLogger("transformers").setLevel(logging.ERROR)

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Files beside the weights that a model needs to read and write text."""


_LOADING_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError),
    *(AssertionError, IndexError),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory."""

    model: Any
    """A `transformers.PreTrainedModel` in evaluation mode, without gradients."""
    max_positions: int
    """Most tokens of prompt and completion together."""
    layers: tuple[LocalArtifact, ...]
    """What it was made of, the base first."""
    initial_weights: str | None = None
    """Digest of the weights that were drawn for a configuration alone; None where there are weight files."""

    @property
    def folder(self) -> Path:
        """Folder of the base, with its tokenizer's files."""
        return self.layers[0].folder


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBase(LoadedModel):
    """A model in memory with all that is needed to ask it."""

    tokenizer: "Tokenizer"
    chat_format: ChatFormat
    stop_ids: frozenset[int]
    """Tokens that end a completion."""


def load_base(
    layers: Sequence[LocalArtifact],
    *,
    dtype: torch.dtype,
    quantization: Quantization | None = None,
    device: str | torch.device = "cpu",
) -> LoadedBase:
    """Loads a model, merges the adapters above it, and quantises it if asked to.

    Args:
        layers: the base, a whole model, then adapters in the order they were trained, each on all below it.
        dtype: number format of the weights; of quantised ones, of their products and of the weights that stay whole.
        quantization: how the linear layers of the decoder blocks are kept; None: whole.
        device: where the weights go, `cpu` or `cuda:N`.

    Raises:
        IntegrityError: a byte is not what a manifest says; the file is named.
        InvalidModel: the files are no model that is supported, or an adapter does not fit it.
    """
    with verified(layers):
        loaded = load_model(layers, dtype, quantization, device)
        tokenizer = load_tokenizer(loaded.folder)
        check_vocabulary(tokenizer, loaded.model.get_input_embeddings().weight.shape[0])
        return LoadedBase(
            model=loaded.model,
            tokenizer=tokenizer,
            chat_format=ChatFormat.load(loaded.folder, tokenizer, now=TRAINING_TIME),
            stop_ids=stop_ids(loaded.folder, tokenizer),
            max_positions=loaded.max_positions,
            layers=loaded.layers,
            initial_weights=loaded.initial_weights,
        )


@contextlib.contextmanager
def verified(layers: Sequence[LocalArtifact]) -> Iterator[None]:
    """Reads and checks all files beside the body, for hashing needs no interpreter lock; ends when both are done.

    Raises:
        IntegrityError: A file is damaged; this is told whatever the damage made of the body.
    """

    def verify() -> None:
        for layer in layers:
            layer.verify()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="verify") as pool:
        verified = pool.submit(verify)
        try:
            yield
        finally:
            verified.result()


@contextlib.contextmanager
def damage_first(layers: Sequence[LocalArtifact], faults: tuple[type[Exception], ...]) -> Iterator[None]:
    """Tells damage as such, whatever it makes of a body that reads some of the files before all are checked.

    Args:
        layers: Whose files they are.
        faults: What damage may make of the body.

    Raises:
        IntegrityError: The body has raised one of them, and a file is damaged.
    """
    try:
        yield
    except faults:
        for layer in layers:
            layer.verify()
        raise


def load_model(
    layers: Sequence[LocalArtifact], dtype: torch.dtype, quantization: Quantization | None, device: str | torch.device
) -> LoadedModel:
    """Loads what `load_base` loads, but for what only a model that is asked needs: its tokenizer takes 0.1 s.

    Whoever calls it does so within `verified`, and hands the model on after that.

    Raises:
        InvalidModel: As `load_base`.
    """
    base, *adapters = layers
    if base.kind != "model" or any(layer.kind != "adapter" for layer in adapters):
        kinds = ", ".join(layer.kind for layer in layers)
        raise InvalidModel(f"The layers are {kinds}.", "Give one whole model first, then adapters only.")
    config = read_config(base.folder)
    model = _from_pretrained(base.folder, config, dtype)
    initial_weights = getattr(model, ATTRIBUTE, None)
    if adapters:
        # Imported late: PEFT takes a second that a process without adapters need not pay.
        from services.modelkit.adapters import merge_adapter

        for adapter in adapters:
            model = merge_adapter(model, adapter)
    model.requires_grad_(False).eval()
    model = quantize(model, quantization, dtype, device) if quantization else model.to(device)
    return LoadedModel(
        model=model,
        max_positions=max_positions(config),
        layers=tuple(layers),
        initial_weights=initial_weights,
    )


def check_vocabulary(tokenizer: "Tokenizer", rows: int) -> None:
    """Refuses a tokenizer with more words than a model's embedding has rows.

    Raises:
        InvalidModel: It is of another model.
    """
    words = tokenizer.get_vocab_size(with_added_tokens=True)
    if words > rows:
        raise InvalidModel(
            f"The tokenizer has {words} words, and the model's embedding {rows} rows.",
            "Give the weights and the tokenizer of one model.",
        )


def load_weights(folder: Path, dtype: torch.dtype) -> Any:
    """Loads a model that this process has written itself, frozen and in evaluation mode; nothing is verified.

    Raises:
        InvalidModel: The files are no model that is supported.
    """
    return _from_pretrained(folder, read_config(folder), dtype).requires_grad_(False).eval()


def read_config(folder: Path) -> dict[str, Any]:
    """Reads `config.json` of a model and refuses what must not be loaded.

    Raises:
        InvalidModel: there is none, it wants code of its own, is quantised already, or of another architecture.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture = (config.get("architectures") or [None])[0]
    except FileNotFoundError:
        raise InvalidModel("The model has no config.json.", "Import the whole model folder.") from None
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise InvalidModel(f"config.json cannot be read: {error}.", "Import the model folder again.") from error
    if "auto_map" in config:
        raise InvalidModel(
            "config.json names code of its own (`auto_map`), which is never run.",
            "Import a model whose architecture transformers has, without `auto_map`.",
        )
    if architecture not in SUPPORTED_ARCHITECTURES:
        supported = ", ".join(SUPPORTED_ARCHITECTURES)
        raise InvalidModel(f"The architecture {architecture} is not supported.", f"Supported: {supported}.")
    if "quantization_config" in config:
        raise InvalidModel(
            "The model's weights are quantised already.", "Import it in bfloat16 or float32; QLoRA quantises it itself."
        )
    if seed_of(folder) is None and not any(folder.glob("*.safetensors")):
        raise InvalidModel("The model has no *.safetensors file.", "Save it with `safe_serialization=True`.")
    return dict(config)


def stop_ids(folder: Path, tokenizer: "Tokenizer") -> frozenset[int]:
    """Finds the tokens that end a completion: those of the generation settings, and the tokenizer's `eos_token`."""
    found: set[int] = set()
    settings = folder / "generation_config.json"
    sources = [read_config(folder), json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}]
    for source in sources:
        value = source.get("eos_token_id")
        found.update(number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int))
    eos = ChatFormat.load(folder, tokenizer).special_tokens.get("eos_token")
    number = tokenizer.token_to_id(eos) if eos else None
    return frozenset(found if number is None else found | {number})


def _from_pretrained(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> Any:
    model_class = getattr(transformers, config["architectures"][0])
    seed = seed_of(folder)
    try:
        if seed is not None:
            return draw_model(model_class, folder, seed).to(dtype)
        model, report = model_class.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    # What a malformed file makes transformers raise is not documented; all of it means that the files are no model.
    except (*_LOADING_ERRORS, SafetensorError, StrictDataclassError) as error:
        first = str(error).strip().partition("\n")[0].rstrip(".:")
        raise InvalidModel(f"The model cannot be loaded: {first}.", "Import the model folder again.") from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        names = ", ".join(missing[:3])
        raise InvalidModel(f"Weights are missing from the model's files: {names}.", "Import the whole model folder.")
    if wrong := sorted(report.get("mismatched_keys", ()), key=str):
        name, found, wanted = wrong[0]
        raise InvalidModel(
            f"The weight {name} has the shape {tuple(found)}, and config.json asks for {tuple(wanted)}.",
            "Give the weights and the configuration of one model.",
        )
    return model


def max_positions(config: dict[str, Any]) -> int:
    """Returns the most tokens that a model takes, prompt and completion together, by its configuration."""
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(config.get(name), int):
            return int(config[name])
    return 2048  # no supported architecture lacks both; a short window fails early rather than late
