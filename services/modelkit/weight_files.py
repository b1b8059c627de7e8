"""Weights of a model folder, one tensor at a time: read from its shards, and written as new ones.

Only the tensor at hand is in memory, however large the model is. The format is that of safetensors: eight bytes with
the length of the header, the header as JSON (name -> format, shape, place), then the tensors' bytes without a hole
(https://github.com/huggingface/safetensors, "Format").
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open

from services.modelkit.faults import InvalidModel

SHARD_BYTES: Final = 5_000_000_000
"""Most bytes of one file, as transformers writes them; a tensor that is larger has a file of its own."""
FORMATS: Final = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_DTYPES: Final = {name: dtype for dtype, name in FORMATS.items()}
_INDEX: Final = "model.safetensors.index.json"
_ALIGNMENT: Final = 8


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a folder."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    """float32, bfloat16 or float16."""
    path: Path
    """The file that it is in."""

    def read(self) -> torch.Tensor:
        """Returns its numbers, on the CPU."""
        with safe_open(self.path, "pt") as file:
            return torch.as_tensor(file.get_tensor(self.name))

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """Returns the weights of a model folder by name: those of its shards where it has an index, else of its one file.

    Raises:
        InvalidModel: A file cannot be read, or holds numbers of another format.
    """
    index = folder / _INDEX
    try:
        named = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
        found = [tensor for name in sorted(named) for tensor in _tensors_of(folder / name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InvalidModel(f"The model's weights cannot be read: {error}.", "Import the model folder again.") from error
    return sorted(found, key=lambda tensor: tensor.name)


def _tensors_of(path: Path) -> Iterator[StoredTensor]:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            part = file.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                known = ", ".join(_DTYPES)
                raise InvalidModel(f"The weight {name} has the format {part.get_dtype()}.", f"Use one of {known}.")
            yield StoredTensor(name, tuple(part.get_shape()), _DTYPES[part.get_dtype()], path)


def write_tensors(
    folder: Path,
    tensors: Sequence[tuple[StoredTensor, torch.dtype]],
    numbers_of: Callable[[StoredTensor], torch.Tensor],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes tensors as `model.safetensors`, or as shards and their index where they are larger than one file.

    Args:
        folder: That takes them.
        tensors: What is written, each with the format that it gets.
        numbers_of: Returns the numbers of one, in that format; asked once for each, in order.
        shard_bytes: Most bytes of a file.
    """
    shards: list[list[tuple[StoredTensor, torch.dtype]]] = [[]]
    room = shard_bytes
    for tensor, dtype in tensors:
        size = tensor.numbers * dtype.itemsize
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append((tensor, dtype))
        room -= size
    if len(shards) == 1:
        _write_file(folder / "model.safetensors", shards[0], numbers_of)
        return
    names = {number: f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)}
    for number, shard in enumerate(shards, start=1):
        _write_file(folder / names[number], shard, numbers_of)
    weight_map = {tensor.name: names[number] for number, shard in enumerate(shards, start=1) for tensor, _ in shard}
    total = sum(tensor.numbers * dtype.itemsize for tensor, dtype in tensors)
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / _INDEX).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_file(
    path: Path,
    tensors: Sequence[tuple[StoredTensor, torch.dtype]],
    numbers_of: Callable[[StoredTensor], torch.Tensor],
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor, dtype in tensors:
        begin, end = end, end + tensor.numbers * dtype.itemsize
        header[tensor.name] = {"dtype": FORMATS[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor, dtype in tensors:
            # No name holds the numbers, so that they are gone before the next ones come.
            file.write(_bytes_of(numbers_of(tensor), tensor, dtype))


def _bytes_of(numbers: torch.Tensor, tensor: StoredTensor, dtype: torch.dtype) -> memoryview:
    if numbers.dtype is not dtype or tuple(numbers.shape) != tensor.shape:
        raise ValueError(f"{tensor.name} came as {numbers.dtype} {tuple(numbers.shape)}")
    return memoryview(numbers.contiguous().flatten().view(torch.uint8).numpy())
