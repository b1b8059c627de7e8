"""The rows of uploads by presigned URL that are not complete: one for a project and a digest."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from services.registry.blobs.store import Stored, bury
from services.registry.tables import BLOB_UPLOADS


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpload:
    """An upload that goes straight to the object store."""

    project: str
    sha256: str
    size_bytes: int
    place: str
    upload_id: str
    """Of the store's upload in parts; empty for one that is sent whole."""
    part_bytes: int
    """Bytes in each part but the last."""

    @property
    def stored(self) -> Stored:
        """What it will be."""
        return Stored(self.sha256, self.place, self.size_bytes)

    @property
    def num_parts(self) -> int:
        """How many parts it has, at least one."""
        return max(1, -(-self.size_bytes // self.part_bytes))

    def part_size(self, number: int) -> int:
        """Returns the bytes in a part, numbered from 1."""
        return min(self.part_bytes, self.size_bytes - (number - 1) * self.part_bytes)


def find_upload(connection: Connection, project: str, sha256: str) -> PendingUpload | None:
    """Returns the upload of a digest into a project; None when there is none."""
    row = connection.execute(
        select(BLOB_UPLOADS).where(BLOB_UPLOADS.c.project == project, BLOB_UPLOADS.c.sha256 == sha256)
    ).one_or_none()
    if row is None:
        return None
    return PendingUpload(
        project=row.project,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        place=row.place,
        upload_id=row.upload_id,
        part_bytes=row.part_bytes,
    )


def add_upload(connection: Connection, upload: PendingUpload, *, time_us: int) -> PendingUpload:
    """Adds an upload, or returns the one that was added meanwhile."""
    found = find_upload(connection, upload.project, upload.sha256)
    if found is None:
        connection.execute(
            insert(BLOB_UPLOADS).values(
                project=upload.project,
                sha256=upload.sha256,
                size_bytes=upload.size_bytes,
                place=upload.place,
                upload_id=upload.upload_id,
                part_bytes=upload.part_bytes,
                update_time_us=time_us,
            )
        )
    return found or upload


def refresh_upload(connection: Connection, upload: PendingUpload, *, time_us: int) -> None:
    """Notes that somebody goes on with an upload."""
    statement = update(BLOB_UPLOADS).where(BLOB_UPLOADS.c.place == upload.place)
    connection.execute(statement.values(update_time_us=time_us))


def remove_upload(connection: Connection, upload: PendingUpload) -> bool:
    """Removes the row of an upload; returns whether it was there."""
    return connection.execute(delete(BLOB_UPLOADS).where(BLOB_UPLOADS.c.place == upload.place)).rowcount == 1


def give_up(connection: Connection, upload: PendingUpload, *, time_us: int) -> None:
    """Removes the row of an upload, and leaves what was sent to the collector."""
    if remove_upload(connection, upload):
        bury(connection, upload.stored, time_us=time_us)


def stale_uploads(connection: Connection, project: str, before_us: int) -> list[PendingUpload]:
    """Returns a project's uploads that nobody has gone on with since a time."""
    statement = select(BLOB_UPLOADS.c.sha256).where(
        BLOB_UPLOADS.c.project == project, BLOB_UPLOADS.c.update_time_us < before_us
    )
    found = (find_upload(connection, project, sha256) for sha256 in connection.execute(statement).scalars().all())
    return [upload for upload in found if upload is not None]


def upload_projects(connection: Connection) -> list[str]:
    """Returns the projects that have uploads."""
    return list(connection.execute(select(BLOB_UPLOADS.c.project).distinct()).scalars())
