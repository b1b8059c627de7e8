"""The weights: one base and the adapters beside it, and which of them are in force.

An adapter of an adapter is served by putting both into force: what they add adds up, so one base serves all of them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from services.inference.framing import Message
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.hardware import computes_bf16
from services.modelkit.loading import LoadedBase, load_base
from tuneforge.data.vocabulary import longest_token
from tuneforge.manifest import Manifest, ManifestFile

DType = Literal["auto", "bf16", "fp32"]
ModelKey = tuple[str, ...]
"""Digests of the adapters in force, the lowest first; empty: the base alone."""


class Models:
    """One base and the adapters that were loaded beside it."""

    def __init__(self, *, device: str, dtype: DType) -> None:
        """Takes where to compute and in which number format.

        Args:
            device: `cpu`, `cuda:N`, or `auto` for the first accelerator that there is.
            dtype: `auto` is bfloat16 where the device computes it natively, else float32.
        """
        if device == "auto":
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device)
        is_bf16 = dtype == "bf16" or (dtype == "auto" and computes_bf16(self._device))
        self._dtype = torch.bfloat16 if is_bf16 else torch.float32
        self._model: Any = None
        self._adapters: dict[str, str] = {}
        self._in_force: ModelKey | None = None
        self.base: LoadedBase | None = None
        """The base with its tokenizer; None until it is loaded."""
        self.character_limit: int | None = None
        """Characters above which no prompt fits the base; None when that cannot be told from its tokenizer."""

    def load(self, layers: Sequence[LocalArtifact]) -> None:
        """Loads the base unless it is there, and those adapters above it that are not.

        Raises:
            IntegrityError, InvalidModel, RenderingError: as `load_base` and `load_adapter`.
        """
        base, *adapters = layers
        if self.base is None:
            self.base = load_base([base], dtype=self._dtype, device=self._device)
            self._model = self.base.model
            longest = longest_token(self.base.tokenizer)
            self.character_limit = None if longest is None else longest * self.base.max_positions
        for adapter in adapters:
            if adapter.digest not in self._adapters:
                self._load_adapter(adapter)

    def _load_adapter(self, adapter: LocalArtifact) -> None:
        # Imported late: PEFT takes a second that an engine without adapters need not pay.
        from services.modelkit.adapters import load_adapter

        name = f"a{adapter.digest}"  # PEFT takes names without a dot that are no Python attribute
        self._model = load_adapter(self._model, adapter, name, dtype=self._dtype)
        self._adapters[adapter.digest] = name
        self._in_force = None

    def unload(self, digests: Iterable[str]) -> None:
        """Gives up adapters; those that are not loaded are passed over."""
        for digest in digests:
            if (name := self._adapters.pop(digest, None)) is not None:
                self._in_force = None
                if len(self._model.peft_config) > 1:
                    self._model.delete_adapter(name)
                else:
                    self._model = self._model.unload()

    def put_in_force(self, key: ModelKey) -> Any:
        """Makes the model compute with exactly these adapters and returns it."""
        if key != self._in_force and self._adapters:
            tuner = self._model.base_model
            if key:
                tuner.enable_adapter_layers()
                tuner.set_adapter([self._adapters[digest] for digest in key], inference_mode=True)
            else:
                tuner.disable_adapter_layers()
        self._in_force = key
        return self._model

    def has(self, key: ModelKey) -> bool:
        """Whether the base and all these adapters are loaded."""
        return self.base is not None and all(digest in self._adapters for digest in key)


def artifact_from(message: Message) -> LocalArtifact:
    """Reads an artifact from a message of the service."""
    files = [ManifestFile(path=path, sha256=sha256, size_bytes=size) for path, sha256, size in message["files"]]
    manifest = Manifest.of(files)
    return LocalArtifact(
        folder=Path(message["folder"]),
        manifest=manifest,
        kind=message["kind"],
        ref_version=message["version"],
        digest=manifest.digest,
    )
