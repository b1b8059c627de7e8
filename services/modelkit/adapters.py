"""LoRA adapters: made, loaded side by side, merged and saved in the files that PEFT reads and writes.

Loading takes a configuration of known fields and weights from safetensors, and insists that every weight finds its
place. Saved files hold nothing of this machine and come out the same for the same weights.
"""

import contextlib
import json
import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from transformers.pytorch_utils import Conv1D

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it wants a kernel from a hub, and computes without it

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from services.modelkit.artifacts import LocalArtifact  # noqa: E402
from services.modelkit.faults import InvalidModel  # noqa: E402
from services.modelkit.initialization import check_drawn  # noqa: E402
from services.modelkit.layers import decoder_linears, linear_names  # noqa: E402
from tuneforge.specs.spec import LoraMethod  # noqa: E402

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
_TAKEN_FIELDS: Final = frozenset(
    {"r", "lora_alpha", "target_modules", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora"}
)
_PASSED_OVER_FIELDS: Final = frozenset(
    {"auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode", "init_lora_weights", "peft_type"}
) | {"peft_version", "revision", "runtime_config", "task_type", "megatron_core", "qalora_group_size"}
"""Fields that say where an adapter comes from or how its training began, not what it computes."""


def attach_lora(model: Any, method: LoraMethod, seed: int, *, head: str | None = None) -> PeftModel:
    """Puts new LoRA adapters beside a model's linear layers; only they move in training, and a head if one is named.

    The first factor is drawn by `seed` (Kaiming uniform), the second is zero, so the model computes as before.

    Args:
        model: a causal language model, whole or in 4 bits.
        method: rank, alpha, dropout and targets; 0 and None take the contract's defaults.
        seed: seed of the first factors; the global random state is left as it was.
        head: layer that moves whole and is saved with the adapters; the model is then one for sequence classification.

    Raises:
        InvalidModel: a target is no linear layer of the decoder blocks.
    """
    rank = method.rank or 16
    known = linear_names(model)
    unknown = sorted(set(method.target_modules) - set(known))
    if unknown:
        raise InvalidModel(
            f"The model has no linear layer {', '.join(unknown)}.", f"Choose `target_modules` from {', '.join(known)}."
        )
    config = LoraConfig(
        task_type="SEQ_CLS" if head else "CAUSAL_LM",
        modules_to_save=[head] if head else None,
        r=rank,
        lora_alpha=method.alpha or 2 * rank,
        lora_dropout=method.dropout or 0.0,
        target_modules=sorted(method.target_modules) or known,
        fan_in_fan_out=_is_transposed(model),
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        return PeftModel(model, config)


def load_adapter(model: Any, artifact: LocalArtifact, name: str, *, dtype: torch.dtype | None = None) -> PeftModel:
    """Loads a verified adapter beside a model, under a name of its own; it is active only after `set_adapter`.

    Args:
        model: the base, or a PeftModel that carries other adapters already.
        artifact: the adapter's files.
        name: its name in the model, unused so far.
        dtype: number format of its weights; None keeps that of the file.

    Returns:
        The PeftModel: `model` itself where it was one.

    Raises:
        IntegrityError: a byte is not what the manifest says; the file is named.
        InvalidModel: the files are no LoRA adapter, or one of another base.
    """
    artifact.verify()
    check_drawn(model, artifact.folder)
    config = _read_config(artifact.folder, _is_transposed(model))
    weights = _read_weights(artifact.folder, dtype)
    try:
        with _quiet():
            if isinstance(model, PeftModel):
                model.add_adapter(name, config, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
            else:
                model = PeftModel(model, config, name, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
            report = set_peft_model_state_dict(model, weights, name, low_cpu_mem_usage=True)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        _remove(model, name)
        first = str(error).strip().partition("\n")[0].rstrip(".:")
        raise InvalidModel(
            f"The adapter does not fit its base: {first}.", "Give the base it was trained on."
        ) from error
    stray = [key for key in report.missing_keys if f".{name}." in key] + list(report.unexpected_keys)
    if stray:
        _remove(model, name)
        message = f"The adapter does not fit its base: the weight {stray[0]} is on one side only."
        raise InvalidModel(message, "Give the base it was trained on.")
    model.requires_grad_(False).eval()
    return model


def merge_adapter(model: Any, artifact: LocalArtifact) -> Any:
    """Adds a verified adapter's weights to those of a model and returns the model, without a trace of PEFT.

    Raises:
        IntegrityError, InvalidModel: as `load_adapter`.
    """
    return load_adapter(model, artifact, "merged").merge_and_unload(safe_merge=False)


def save_adapter(model: PeftModel, folder: Path, name: str = "default") -> None:
    """Writes an adapter in PEFT's files: the same bytes for the same weights, and no path of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = model.peft_config[name].to_dict() | {"base_model_name_or_path": None, "inference_mode": True}
    content = json.dumps(fields, indent=2, sort_keys=True, default=_plain) + "\n"
    (folder / CONFIG_FILE).write_text(content, encoding="utf-8")
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    tensors = {key: state[key].detach().cpu().contiguous() for key in sorted(state)}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def save_model(model: Any, folder: Path, tokenizer_files: Iterable[Path]) -> None:
    """Writes a whole model as a Hugging Face folder with safetensors weights, in the number format that they have.

    Args:
        model: a causal language model without adapters.
        folder: made when missing.
        tokenizer_files: files of the base that belong to a model beside its weights; those missing are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    for path in tokenizer_files:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)


def read_adapter(folder: Path, *, is_transposed: bool) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """Reads the files of a verified adapter.

    Args:
        folder: With both files.
        is_transposed: Whether its base keeps linear weights as GPT-2 does, input side first.

    Raises:
        InvalidModel: The files are no LoRA adapter.
    """
    return _read_config(folder, is_transposed), _read_weights(folder, None)


def _read_config(folder: Path, is_transposed: bool) -> LoraConfig:
    try:
        fields = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        kind = fields.get("peft_type")
    except FileNotFoundError:
        raise InvalidModel(f"The adapter has no {CONFIG_FILE}.", "Publish both files of the adapter.") from None
    except (ValueError, AttributeError) as error:
        raise InvalidModel(f"{CONFIG_FILE} cannot be read: {error}.", "Publish the adapter again.") from error
    if kind != "LORA":
        raise InvalidModel(f"The adapter is of the kind {kind}.", "Only LoRA adapters are supported.")
    if fields.get("task_type") == "SEQ_CLS":
        raise InvalidModel("The adapter is a reward model's, which writes no text.", "Choose an adapter that does.")
    unset = LoraConfig().to_dict()
    for field, value in fields.items():
        if field in _TAKEN_FIELDS | _PASSED_OVER_FIELDS or not value or value == unset.get(field):
            continue
        raise InvalidModel(f"The adapter sets {field} to {value!r}.", "Train it with LoRA weights alone.")
    if not isinstance(fields.get("target_modules"), list):
        raise InvalidModel("The adapter's target_modules is no list.", "Name the layers, without a pattern.")
    taken = {field: value for field, value in fields.items() if field in _TAKEN_FIELDS}
    try:
        return LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=is_transposed, inference_mode=True, **taken)
    except (ValueError, TypeError) as error:
        raise InvalidModel(f"{CONFIG_FILE} is wrong: {error}.", "Publish the adapter again.") from error


def _read_weights(folder: Path, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError:
        raise InvalidModel(f"The adapter has no {WEIGHTS_FILE}.", "Save it with safetensors.") from None
    except SafetensorError as error:
        raise InvalidModel(f"{WEIGHTS_FILE} cannot be read: {error}.", "Publish the adapter again.") from error
    return {key: tensor.to(dtype) if dtype else tensor for key, tensor in weights.items()}


def _is_transposed(model: Any) -> bool:
    """Tells whether the model keeps linear weights as GPT-2 does, input side first."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    return any(isinstance(getattr(layer, "base_layer", layer), Conv1D) for _, _, layer in decoder_linears(plain))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps PEFT's use of names that transformers calls deprecated out of the log: it is theirs to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _remove(model: Any, name: str) -> None:
    if isinstance(model, PeftModel) and name in model.peft_config and len(model.peft_config) > 1:
        model.delete_adapter(name)


def _plain(value: object) -> object:
    """Turns what JSON does not know into what it knows, sets in order."""
    return sorted(value) if isinstance(value, set | frozenset) else str(getattr(value, "value", value))
