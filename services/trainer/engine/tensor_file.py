"""Writes tensors as a safetensors file in one pass: synced to disk, and hashed on the way.

The library's own writer copies all tensors once more and holds Python's lock meanwhile, and a digest would read the
file again; a run that trains beside the write would feel each of them.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from tuneforge.manifest import ManifestFile

_PIECE_BYTES = 4 * 1024 * 1024
_ALIGNED = 8
_NAMES: Final[Mapping[torch.dtype, str]] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> ManifestFile:
    """Writes tensors and returns the entry of the file, by what was written and not by what can be read back.

    Args:
        path: The file; it must not be there.
        tensors: Of one of the types above, on the CPU.

    Raises:
        OSError: The disk refuses.
    """
    return write_pieces(path, _pieces(tensors))


def digest_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Returns the SHA-256 of the file that `write_tensors` would write."""
    digest = hashlib.sha256()
    for piece in _pieces(tensors):
        digest.update(piece)
    return digest.hexdigest()


def write_pieces(path: Path, pieces: Iterator[memoryview]) -> ManifestFile:
    """Writes the bytes of a file durably and returns its entry.

    Raises:
        OSError: The disk refuses.
    """
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            while piece:
                piece = piece[os.write(descriptor, piece) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return ManifestFile(path=path.name, sha256=digest.hexdigest(), size_bytes=size)


def _pieces(tensors: Mapping[str, torch.Tensor]) -> Iterator[memoryview]:
    # The widest numbers first: so each begins where a reader can take it as it lies.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, offset = {}, 0
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        content = bytes_of(tensor).data
        for start in range(0, len(content), _PIECE_BYTES):
            yield content[start : start + _PIECE_BYTES]


def bytes_of(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Returns the memory of a tensor of the CPU; of a copy, when its numbers do not lie one after the other."""
    content: npt.NDArray[np.uint8] = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return content
