"""What a run leaves beside its weights, as JSON documents that other tools read: written alike by trainer and registry.

Only what repeats when a run is repeated stands in them, since they are files of the version and part of its digest:
times, speeds and names of jobs are in the version's record, and `training_info` takes them from there when it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tuneforge.names import InvalidName, ModelVersionName
from tuneforge.specs.spec import (
    ComputeType,
    FullMethod,
    LoraMethod,
    MergeMethod,
    QloraMethod,
    Quantization,
    RewardModelTask,
    TrainingSpec,
)

INT8_THRESHOLD = 6.0
"""Inputs beyond it are multiplied in 16 bits (arXiv 2208.07339, section 3.2)."""
VOLATILE = ("train_runtime", "train_samples_per_second")
"""Results of a run that differ between two equal runs."""


def model_id_of(version: str, fallback: str) -> str:
    """Returns the id by which documents name a model: the last part of its model's name.

    Args:
        version: `projects/{project}/models/{model}/versions/{version}`.
        fallback: Returned for anything else, such as the empty name of a local folder.
    """
    try:
        return ModelVersionName.parse(version).model
    except InvalidName:
        return fallback


def tuned_id(base_id: str) -> str:
    """Returns the id of what was tuned from a base."""
    return f"{base_id}-finetuned"


def method_word(spec: TrainingSpec) -> str:
    """Returns the method as a word: `lora`, `qlora`, `full` or `merge`; empty when there is none."""
    if isinstance(spec.method, QloraMethod):
        return "qlora"
    if isinstance(spec.method, LoraMethod):
        return "lora"
    if isinstance(spec.method, MergeMethod):
        return "merge"
    return "full" if isinstance(spec.method, FullMethod) else ""


def precision_word(compute: ComputeType) -> str:
    """Returns the number format of the products as a word."""
    return compute.value if compute in (ComputeType.BF16, ComputeType.FP16) else "fp32"


def lora_document(spec: TrainingSpec) -> dict[str, Any] | None:
    """Returns the adapters of a resolved spec; None for full fine-tuning."""
    lora = spec.lora
    if lora is None:
        return None
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout or 0.0,
        "target_modules": list(lora.target_modules) or "all-linear",
        "bias": "none",
        "task_type": "SEQ_CLS" if isinstance(spec.task, RewardModelTask) else "CAUSAL_LM",
    }


def quantization_document(spec: TrainingSpec) -> dict[str, Any] | None:
    """Returns how the frozen weights were kept; None where they were whole."""
    if not isinstance(spec.method, QloraMethod):
        return None
    if spec.method.quantization is Quantization.INT8:
        return {"load_in_8bit": True, "llm_int8_threshold": INT8_THRESHOLD}
    compute = {ComputeType.BF16: "bfloat16", ComputeType.FP16: "float16"}.get(spec.compute, "float32")
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": spec.method.quantization is Quantization.NF4,
        "bnb_4bit_compute_dtype": compute,
    }


def merge_document(
    *, method: str, base_quantization: str, weight_format: str, figures: Mapping[str, float]
) -> dict[str, Any]:
    """Returns what a whole model says of the adapter that it was made with.

    Args:
        method: How the adapter was trained; empty where it is not known.
        base_quantization: How the base below it was kept, e.g. `nf4`; empty: whole.
        weight_format: `WeightFormat` that was asked for.
        figures: Final figures; those of the merge are taken.
    """
    prefix = "merge_"
    divergence = {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
    kept = {"method": method, "base_quantization": base_quantization, "format": weight_format}
    return {name: value for name, value in kept.items() if value} | {"divergence": divergence}


def training_config(spec: TrainingSpec) -> dict[str, Any]:
    """Returns the figures of a resolved spec that a run is described by."""
    optimization = spec.optimization
    content: dict[str, Any] = {
        "learning_rate": optimization.learning_rate,
        "batch_size": optimization.rows_per_step,
        "per_device_batch_size": optimization.rows_per_micro_batch,
        "epochs": optimization.epochs,
        "max_steps": optimization.max_steps,
        "max_seq_length": spec.data.max_tokens,
        "optimizer": optimization.optimizer.value,
        "lr_schedule": optimization.schedule.value,
        "warmup_ratio": optimization.warmup_ratio,
        "weight_decay": optimization.weight_decay,
        "max_grad_norm": optimization.max_grad_norm,
        "precision": precision_word(spec.compute),
        "seed": spec.seed or 0,
    }
    return {name: value for name, value in content.items() if value is not None}


def training_info(spec: TrainingSpec, base_id: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Returns the document `training_info.json`.

    Args:
        spec: Resolved.
        base_id: Id of the base.
        metrics: Final figures: `loss`, `evaluation_loss`, and with them those of `VOLATILE` that are known.
    """
    method = method_word(spec)
    results: dict[str, Any] = {"train_loss": metrics.get("loss"), "eval_loss": metrics.get("evaluation_loss")}
    results |= {"train_runtime": metrics.get("train_seconds")} if "train_seconds" in metrics else {}
    if "train_samples_per_second" in metrics:
        results["train_samples_per_second"] = metrics["train_samples_per_second"]
    results |= {"model_path": ".", "method": method, "quantization": quantization_document(spec)}
    return {
        "model_id": base_id,
        "output_dir": ".",
        "training_config": training_config(spec),
        "method": method,
        "results": {name: value for name, value in results.items() if value is not None},
    }


def document(content: Mapping[str, Any]) -> str:
    """Returns a document as it is written: the same text for the same content."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
