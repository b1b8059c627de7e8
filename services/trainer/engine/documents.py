"""The files beside the weights of a result: what it is, what it was made with, what it needs, how it can be loaded.

They are part of the version's digest, so only what repeats with the run stands in them: no time, no speed, no name of a
job or a folder. The same inputs, spec and environment give the same bytes.
"""

import functools
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from services.modelkit.initialization import INITIAL_WEIGHTS, METADATA
from services.modelkit.loading import TOKENIZER_FILES
from tuneforge.architectures import FRAMEWORK, ModelTask, reward_class
from tuneforge.specs import profile
from tuneforge.specs.profile_documents import (
    document,
    lora_document,
    merge_document,
    method_word,
    precision_word,
    quantization_document,
    training_info,
    tuned_id,
)
from tuneforge.specs.spec import RewardModelTask, TrainingSpec

CONFIG = "config.json"
ENVIRONMENT = "env.json"
TRAINING_INFO = "training_info.json"
PROFILE = "aim_profile.json"
_STABLE = ("loss", "evaluation_loss")
"""Figures of a run that repeat with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeFacts:
    """What is known of the adapter that a whole model was made with."""

    method: str
    """How it was trained: `lora`, `qlora`; empty where it does not say."""
    base_quantization: str
    """How the base below it was kept, e.g. `nf4`: the model has what is left of it; empty: whole."""
    format: str
    """`WeightFormat` that was asked for."""
    figures: Mapping[str, float]
    """How far the model is from the adapter."""

    def document(self) -> dict[str, Any]:
        """Returns it as the documents have it."""
        return merge_document(
            method=self.method,
            base_quantization=self.base_quantization,
            weight_format=self.format,
            figures=self.figures,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFacts:
    """What is known of a result when it is written."""

    spec: TrainingSpec
    """Fully resolved."""
    base_id: str
    """Id by which documents name the base."""
    base_version: str
    """Resource name of the base; empty for a local folder."""
    base_digest: str
    base_folder: Path
    """Of the whole model below everything, with its configuration and tokenizer."""
    architecture: str
    base_parameters: int
    inputs: Mapping[str, str]
    """Digests of what was learned from: `train`, `validation`."""
    environment: Mapping[str, str]
    """Versions and devices, as the run reported them."""
    initial_weights: str | None
    """Digest of drawn weights; None where the base has weight files."""
    metrics: Mapping[str, float]
    merged: MergeFacts | None = None
    """Set where the result is a merged model."""


def write_documents(folder: Path, facts: ResultFacts) -> str:
    """Writes the files beside the weights and returns the profile.

    Args:
        folder: With the weights already; an adapter gets the configuration and the tokenizer of its base too.
        facts: What is known.
    """
    for name in (CONFIG, *TOKENIZER_FILES):
        source = facts.base_folder / name
        if source.is_file() and not (folder / name).exists():
            shutil.copyfile(source, folder / name)
    metrics = {name: facts.metrics[name] for name in _STABLE if name in facts.metrics}
    info = training_info(facts.spec, facts.base_id, metrics)
    profiled = _profile(folder, facts, info)
    documents = {
        ENVIRONMENT: document(_environment(facts)),
        METADATA: document(_metadata(facts)),
        TRAINING_INFO: document(info),
        PROFILE: profiled,
    }
    for name, text in documents.items():
        (folder / name).write_text(text, encoding="utf-8")
    return profiled


@functools.cache
def installed_packages() -> Mapping[str, str]:
    """Returns the version of each package; read once in a process, for parsing them takes as long as a tiny run."""
    found = (each.metadata for each in importlib.metadata.distributions())
    return {str(metadata["Name"]): metadata["Version"] for metadata in found if metadata["Name"]}


def _environment(facts: ResultFacts) -> dict[str, Any]:
    return {
        "python_version": platform.python_version(),
        "packages": installed_packages(),
        "cuda": {"cuda_version": torch.version.cuda},
        "system": {
            "os": platform.system(),
            "machine": platform.machine(),
            "device": facts.environment.get("device", ""),
            "platform": facts.environment.get("platform", ""),
            "threads": facts.environment.get("threads", ""),
        },
        "dataset_path": facts.spec.data.train.dataset or facts.spec.data.train.local_path or "",
    }


def _metadata(facts: ResultFacts) -> dict[str, Any]:
    method = method_word(facts.spec)
    is_reward = isinstance(facts.spec.task, RewardModelTask)
    content: dict[str, Any] = {
        "name": tuned_id(facts.base_id),
        "framework": FRAMEWORK,
        "architecture": reward_class(facts.architecture) if is_reward else facts.architecture,
        "base_model": facts.base_id,
        "base_model_id": facts.base_version or facts.base_id,
        "base_digest": facts.base_digest,
        "task_type": "SEQ_CLS" if is_reward else "CAUSAL_LM",
        "method": method,
        "lora": lora_document(facts.spec),
        "quantization": quantization_document(facts.spec),
        "merged": facts.merged.document() if facts.merged else None,
        "precision": precision_word(facts.spec.compute),
        "training_data": facts.spec.data.train.dataset,
        "training_data_sha256": facts.inputs.get("train"),
        "validation_data": facts.spec.data.validation.dataset if facts.spec.data.validation else None,
        "validation_data_sha256": facts.inputs.get("validation") or None,
        INITIAL_WEIGHTS: facts.initial_weights,
    }
    task = ModelTask.TEXT_CLASSIFICATION if is_reward else ModelTask.TEXT_GENERATION
    # People may change these three at the registry afterwards; here stand those that the run knows.
    people = {"tags": sorted({method, task.value, content["architecture"]}), "license": "", "domain": ""}
    return {**{name: value for name, value in content.items() if value is not None}, **people}


def _profile(folder: Path, facts: ResultFacts, info: Mapping[str, Any]) -> str:
    # An adapter is served on its base as that is stored; a whole model has a configuration of its own.
    config = _read(folder / CONFIG)
    words = {"bfloat16": "bf16", "float16": "fp16"}
    precision = words.get(str(config.get("dtype", config.get("torch_dtype"))), "fp32")
    return profile.profile(
        profile.ProfileFacts(
            model_id=tuned_id(facts.base_id),
            base_model_id=facts.base_id,
            method=method_word(facts.spec),
            precision=precision,
            parameter_count=facts.base_parameters,
            lora_config=lora_document(facts.spec),
            quantization_info=quantization_document(facts.spec),
            training_info=info,
            merge_info=facts.merged.document() if facts.merged else None,
        )
    ).to_json()


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
