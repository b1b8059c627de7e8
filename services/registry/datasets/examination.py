"""How a version of a data set comes to be: its blobs are there, and every row of them can be read."""

from sqlalchemy import Connection

from services.registry.blobs.store import blob_sizes
from services.registry.datasets import files, store
from services.registry.datasets.resources import DatasetContent
from services.registry.library import Library
from services.registry.manifests import require_stored
from tuneforge.manifest import Manifest
from tuneforge.names import DatasetName


async def examine(library: Library, name: DatasetName, manifest: Manifest) -> DatasetContent:
    """Returns what is in the files of a version-to-be; those of an existing version are not read again.

    Raises:
        ServiceError: `NOT_FOUND`, `BLOB_MISSING`, `DIGEST_MISMATCH`, `INVALID_DATA`.
    """

    def look_up(connection: Connection) -> tuple[DatasetContent | None, dict[str, int]]:
        content = store.find_dataset_content(connection, name, manifest.digest)
        return content, blob_sizes(connection, name.project, [file.sha256 for file in manifest.files])

    known, sizes = await library.database.read(look_up)
    if known is not None:
        return known
    require_stored(manifest, sizes)
    reports = [await library.report_on(file.sha256) for file in manifest.files]
    return files.conclude(manifest, reports)
