"""The files of a version into a folder: all of them, or those that fit a pattern."""

import os
from collections.abc import Sequence
from pathlib import Path

from tuneforge.blobs import BlobClient, Progress
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.manifest import Manifest
from tuneforge.promotion_paths import matching


def wanted_files(manifest: Manifest, include: Sequence[str]) -> Manifest:
    """Returns the files of a version that a pattern fits, e.g. `*.json`; without patterns all of them.

    Raises:
        InvalidArgument: There are patterns, and none fits a file.
    """
    if not include:
        return manifest
    chosen = set(matching([file.path for file in manifest.files], include))
    if not chosen:
        names = [file.path for file in manifest.files]
        listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        message = f"no file of the version fits {', '.join(include)}"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure=f"It has {listed}.")
    return Manifest.of(file for file in manifest.files if file.path in chosen)


def bring(blobs: BlobClient, manifest: Manifest, folder: str | os.PathLike[str], progress: Progress | None) -> Path:
    """Brings files into a folder, which is made when missing; returns it."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    blobs.download_folder(manifest, target, progress=progress)
    return target
