"""`python -m services.modelkit.answers`: what a model in a folder says to some prompts, for a check of the folder.

Reads one JSON object from standard input: `model` (folder of a whole model or an adapter), `base` (folder of the
adapter's base, else null), `prompts` (each a text, or a list of turns) and `max_new_tokens`. Writes one JSON object:
the `completions`, greedily decoded, or the `fault`. A process of its own, because what asks has no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from services.modelkit.artifacts import ArtifactKind, LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.loading import LoadedBase, load_base
from tuneforge.data.masks import encode_prompt
from tuneforge.data.rows import Turn
from tuneforge.manifest import IntegrityError, build

_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja")


def main() -> int:
    """Answers one request; returns the exit code."""
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="tuneforge-answers-") as folder:
        try:
            loaded = _load(Path(request["model"]), request["base"], Path(folder))
            answer: dict[str, Any] = {"completions": complete(loaded, request["prompts"], request["max_new_tokens"])}
        except (InvalidModel, IntegrityError, OSError) as error:
            answer = {"fault": str(error)}
    json.dump(answer, sys.stdout)
    return 0


def complete(loaded: LoadedBase, prompts: Sequence[str | list[dict[str, str]]], max_new_tokens: int) -> list[str]:
    """Returns the likeliest completion of each prompt."""
    completions = []
    device = loaded.model.device
    for prompt in prompts:
        turns = (
            prompt if isinstance(prompt, str) else [Turn(role=turn["role"], content=turn["content"]) for turn in prompt]
        )
        # The newest part of a prompt that is longer than the model takes.
        ids = encode_prompt(turns, loaded.tokenizer, loaded.chat_format)[-(loaded.max_positions - max_new_tokens) :]
        tokens = torch.tensor([ids], device=device)
        with torch.inference_mode():
            said = loaded.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=sorted(loaded.stop_ids) or None,
                pad_token_id=0,
            )
        completions.append(loaded.tokenizer.decode(said[0, len(ids) :].tolist(), skip_special_tokens=True))
    return completions


def _load(model: Path, base: str | None, scratch: Path) -> LoadedBase:
    is_adapter = (model / "adapter_config.json").is_file()
    if is_adapter and base is None:
        raise InvalidModel("The folder holds an adapter.", "Give the folder of its base too.")
    layers = [_artifact(model, "model", scratch / "model")]
    if is_adapter:
        layers = [
            _artifact(Path(base or ""), "model", scratch / "base"),
            _artifact(model, "adapter", scratch / "adapter"),
        ]
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    return load_base(layers, dtype=torch.float32, device=device)


def _artifact(folder: Path, kind: ArtifactKind, place: Path) -> LocalArtifact:
    """Takes what belongs to the model out of a folder that may hold much else, such as checkpoints."""
    place.mkdir()
    for pattern in _MODEL_FILES:
        for file in folder.glob(pattern):
            _link(file, place / file.name)
    manifest = build(place)
    return LocalArtifact(folder=place, manifest=manifest, kind=kind, ref_version="", digest=manifest.digest)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


if __name__ == "__main__":
    sys.exit(main())
