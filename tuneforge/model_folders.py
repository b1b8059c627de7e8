"""What an import takes from a folder of this machine: looked at before anything is sent."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from tuneforge.blobs import BlobClient, Progress
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.manifest import Manifest

INITIALIZATION = "initialization.json"
"""Makes a configuration without weights a model."""
_MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})
"""Weights, configurations, tokenizers, chat templates."""


def model_files(folder: Path) -> dict[str, Path]:
    """Returns what is taken of the folder of a whole model, by name.

    Raises:
        InvalidArgument: It is no such folder, or a link in it leads out of it.
    """
    problem = ""
    if not folder.is_dir():
        problem = f"{str(folder)!r} is not a folder"
    elif not (folder / "config.json").is_file():
        problem = f"{str(folder)!r} has no config.json"
    elif not any(folder.glob("*.safetensors")):
        problem = f"{str(folder)!r} has no *.safetensors; pickled weights (*.bin, *.pt) are never read"
    if problem:
        cure = "Give a folder with config.json, *.safetensors and the tokenizer's files."
        raise InvalidArgument(Reason.INVALID_MODEL, problem, cure=cure)
    return _files(folder, frozenset())


def adapter_files(folder: Path) -> dict[str, Path]:
    """Returns what is taken of the folder of a LoRA adapter, by name.

    Raises:
        InvalidArgument: It is no such folder, or a link in it leads out of it.
    """
    missing = [name for name in ("adapter_config.json", "adapter_model.safetensors") if not (folder / name).is_file()]
    if missing:
        cure = "Give the folder that PEFT's `save_pretrained` writes, with safetensors."
        problem = f"{str(folder)!r} has no {' and no '.join(missing)}"
        raise InvalidArgument(Reason.INVALID_MODEL, problem, cure=cure)
    return _files(folder, frozenset())


def upload_configuration(config: Path, seed: int, blobs: BlobClient, progress: Progress | None) -> Manifest:
    """Uploads a configuration alone, with the tokenizer's files beside it, and returns its manifest.

    Args:
        config: `config.json`, or its folder; weights beside it are left where they are.
        seed: Of the weights, 0 to 2^63 - 1.
        blobs: Where they go.
        progress: Told the number of bytes moved.

    Raises:
        InvalidArgument: There is no configuration or no tokenizer, or the seed is out of range.
    """
    folder = config if config.is_dir() else config.parent
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        cure = "Give config.json with the tokenizer's files beside it."
        raise InvalidArgument(Reason.INVALID_MODEL, f"{str(folder)!r} has no {' and no '.join(missing)}", cure=cure)
    if not 0 <= seed < 2**63:
        raise InvalidArgument(Reason.INVALID_FIELD, f"the seed is {seed}", cure="Give 0 to 2^63 - 1.")
    files = _files(folder, frozenset({".safetensors"}))
    with TemporaryDirectory() as place:
        path = Path(place) / INITIALIZATION
        path.write_text(json.dumps({"seed": seed}) + "\n", encoding="utf-8")
        taken = {name: file for name, file in files.items() if not name.endswith(".index.json")}
        return blobs.upload_files(taken | {INITIALIZATION: path}, progress=progress)


def _files(folder: Path, left_out: frozenset[str]) -> dict[str, Path]:
    files = [file for file in sorted(folder.iterdir()) if _belongs(file) and file.suffix not in left_out]
    for file in files:
        _refuse_escape(folder, file)
    return {file.name: file for file in files}


def _belongs(file: Path) -> bool:
    return file.is_file() and file.suffix in _MODEL_SUFFIXES and not file.name.startswith(".")


def _refuse_escape(folder: Path, file: Path) -> None:
    """Refuses a link that leads out of its folder: an unpacked archive must not make anybody upload other files.

    A hub's cache is made of links into `blobs` two folders above; these are followed.
    """
    if not file.is_symlink():
        return
    target, home = file.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not target.is_relative_to(home) and not target.is_relative_to(blobs):
        raise InvalidArgument(
            Reason.INVALID_MODEL,
            f"{file.name!r} in {str(folder)!r} is a link to {str(target)!r}, out of its folder",
            cure="Put the file itself there.",
            metadata={"path": file.name, "codes": "LINK_NOT_ALLOWED"},
        )
