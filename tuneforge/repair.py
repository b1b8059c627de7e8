"""Puts back what is damaged of a version, from a folder with its files: the version and its digest stay the same."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tuneforge.errors import Reason
from tuneforge.manifest import IntegrityError, Manifest, sha256_file

if TYPE_CHECKING:
    from tuneforge.client import Client
    from tuneforge.dataset_values import DatasetVersion
    from tuneforge.model_values import ModelVersion


def repair(
    client: "Client", version: "ModelVersion | DatasetVersion", folder: str | os.PathLike[str]
) -> tuple[str, ...]:
    """Has the registry read every byte of a version, and uploads the files that it finds damaged.

    Args:
        client: Of the registry.
        version: Of a model or a data set.
        folder: Has at least the damaged files, under their paths in the version.

    Returns:
        Paths of the files that were put back.

    Raises:
        IntegrityError: The folder lacks a damaged file, or has another content under its name; nothing was sent.
        TuneforgeError: The registry refused the bytes or stayed away.
    """
    damaged = {each.path for each in client.signing.verify(version.name) if each.reason == Reason.INTEGRITY}
    wanted = Manifest.of([file for file in version.manifest.files if file.path in damaged])
    for file in wanted.files:
        path = Path(folder) / file.path
        if not path.is_file():
            raise IntegrityError(str(path), f"sha256 {file.sha256}", "no file")
        if (found := sha256_file(path)) != file.sha256:
            raise IntegrityError(str(path), f"sha256 {file.sha256}", f"sha256 {found}")
    with client.blobs() as blobs:
        blobs.upload_manifest(Path(folder), wanted)
    return tuple(file.path for file in wanted.files)
