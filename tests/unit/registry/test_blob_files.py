"""Uploads through the registry and blobs as files: take-overs, restarts in the middle, and a disk that refuses."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.grpckit.errors import Reason, ServiceError
from services.registry.blobs.folder import BlobFolder
from services.registry.blobs.home import new_place
from services.registry.blobs.parts import Parts, Upload

CONTENT = os.urandom(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


PLACE = new_place(DIGEST)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFolder:
    """Gives an empty folder of blobs."""
    blobs = BlobFolder(tmp_path)
    blobs.prepare()
    return blobs


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Gives an empty folder of uploads."""
    return fresh(tmp_path)


def fresh(folder: Path) -> Parts:
    """Returns the uploads of a folder as a process that has just started sees them."""
    parts = Parts(folder, reserve_bytes=0)
    parts.prepare()
    return parts


def finish(upload: Upload, blobs: BlobFolder, place: str = PLACE) -> bool:
    """Ends an upload into the folder of blobs."""
    return upload.finish(DIGEST, lambda file: blobs.keep(file, place, DIGEST))


def test_a_part_goes_on_in_another_process(tmp_path: Path, blobs: BlobFolder, parts: Parts) -> None:
    """The bytes on disk are hashed again by the process that goes on, so the whole is verified, not the rest."""
    upload = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT[:100_000])
    upload.close()
    upload = fresh(tmp_path).begin_upload("p", DIGEST, len(CONTENT), 100_000)
    upload.append(CONTENT[100_000:])
    assert finish(upload, blobs)
    upload.close()
    assert blobs.local_path(PLACE).read_bytes() == CONTENT


def test_a_part_that_rotted_is_found(tmp_path: Path, blobs: BlobFolder, parts: Parts) -> None:
    """A part whose bytes changed on disk, as after a loss of power, is thrown away at its end."""
    upload = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT[:100_000])
    upload.close()
    part = tmp_path / "uploads" / "p" / f"{DIGEST}.part"
    part.write_bytes(bytes(100_000))
    upload = fresh(tmp_path).begin_upload("p", DIGEST, len(CONTENT), 100_000)
    upload.append(CONTENT[100_000:])
    with pytest.raises(ServiceError) as caught:
        finish(upload, blobs)
    upload.close()
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert not part.exists()
    assert not blobs.local_path(PLACE).exists()


def test_a_part_that_is_whole_needs_no_more_bytes(tmp_path: Path, blobs: BlobFolder, parts: Parts) -> None:
    """Killed between the last byte and the rename: the next stream only finishes it."""
    upload = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT)
    upload.close()
    upload = fresh(tmp_path).begin_upload("p", DIGEST, len(CONTENT), len(CONTENT))
    assert finish(upload, blobs)
    upload.close()


def test_the_older_stream_cannot_write_into_a_finished_blob(blobs: BlobFolder, parts: Parts) -> None:
    """A stream that was overtaken, even by one that finished, is refused and the blob stays as it is."""
    old = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    old.append(CONTENT[:1000])
    new = parts.begin_upload("p", DIGEST, len(CONTENT), 1000)
    new.append(CONTENT[1000:])
    assert finish(new, blobs)
    new.close()
    for late in (lambda: old.append(b"x"), lambda: finish(old, blobs)):
        with pytest.raises(ServiceError) as caught:
            late()
        assert caught.value.reason is Reason.OFFSET_MISMATCH
    old.close()
    assert blobs.local_path(PLACE).read_bytes() == CONTENT


def test_stored_files_are_listed_and_removed(blobs: BlobFolder, parts: Parts) -> None:
    """Each upload has a place of its own; a place can be removed again and again."""
    places = [new_place(DIGEST) for _ in range(2)]
    for project, place in zip("ab", places, strict=True):
        upload = parts.begin_upload(project, DIGEST, len(CONTENT), 0)
        upload.append(CONTENT)
        assert finish(upload, blobs, place)
        upload.close()
    assert {each.place: each.size_bytes for each in blobs.listing()} == dict.fromkeys(places, len(CONTENT))
    for _ in range(2):
        blobs.delete(places[0])
    assert [each.place for each in blobs.listing()] == places[1:]
    assert [blobs.holds(place, len(CONTENT)) for place in places] == [False, True]


def test_a_file_that_is_gone_or_shorter_is_told(blobs: BlobFolder, parts: Parts) -> None:
    """A blob that the disk lost is BLOB_DAMAGED, not a short download."""
    upload = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT)
    assert finish(upload, blobs)
    upload.close()
    blobs.local_path(PLACE).write_bytes(CONTENT[:5])
    for place in (PLACE, new_place(DIGEST)):
        with pytest.raises(ServiceError) as caught:
            blobs.open(place, 0, len(CONTENT))
        assert caught.value.reason is Reason.BLOB_DAMAGED


def test_a_store_that_fails_leaves_the_part(blobs: BlobFolder, parts: Parts) -> None:
    """When the home refuses a whole upload, its bytes stay and the next stream finishes them."""

    def refuse(_file: Path) -> None:
        raise ServiceError(Reason.STORAGE_UNAVAILABLE, "away")

    upload = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT)
    with pytest.raises(ServiceError):
        upload.finish(DIGEST, refuse)
    upload.close()
    upload = parts.begin_upload("p", DIGEST, len(CONTENT), len(CONTENT))
    assert finish(upload, blobs)
    upload.close()
    assert blobs.local_path(PLACE).read_bytes() == CONTENT


def test_parts_that_are_left_are_swept_but_not_those_in_use(tmp_path: Path, parts: Parts) -> None:
    """Age decides, and a stream that has a part open keeps it."""
    upload = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT[:1000])
    assert parts.projects() == ["p"]
    assert parts.sweep("p", older_than_s=-1) == []
    upload.close()
    assert parts.sweep("p", older_than_s=3600) == []
    assert parts.sweep("p", older_than_s=-1) == [1000]
    assert list((tmp_path / "uploads" / "p").iterdir()) == []


def test_another_size_than_before_starts_anew(blobs: BlobFolder, parts: Parts) -> None:
    """A part that is longer than the size now announced is thrown away."""
    upload = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT[:1000])
    upload.close()
    with pytest.raises(ServiceError) as caught:
        parts.begin_upload("p", DIGEST, 10, 10)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert parts.committed_bytes("p", DIGEST) == 0


def test_a_disk_that_fills_up_keeps_what_was_there(tmp_path: Path) -> None:
    """A write that the system refuses half-way is undone to the last whole chunk; the upload can go on later."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from services.registry.blobs.parts import Parts\n"
        "from services.grpckit.errors import ServiceError\n"
        "parts = Parts(Path(sys.argv[1]), reserve_bytes=0); parts.prepare()\n"
        "upload = parts.begin_upload('p', '0' * 64, 200_000, 0)\n"
        "upload.append(bytes(50_000))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))\n"
        "try: upload.append(bytes(50_000))\n"
        "except ServiceError as error: print(error.reason, parts.committed_bytes('p', '0' * 64))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DISK_FULL", "50000"]


def test_nothing_is_remembered_of_ended_uploads(blobs: BlobFolder, parts: Parts) -> None:
    """Memory does not grow with the number of uploads, ended well or not."""
    for number in range(5):
        upload = parts.begin_upload("p", f"{number:064x}", 10, 0)
        upload.append(b"12345")
        upload.close()
        upload.close()
    assert not parts._parts


def test_a_closed_download_reads_nothing(blobs: BlobFolder, parts: Parts) -> None:
    """A read that comes after the close, from a thread that was slow, is harmless."""
    upload = parts.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT)
    assert finish(upload, blobs)
    upload.close()
    download = blobs.open(PLACE, 299_990, len(CONTENT))
    assert download.read() == CONTENT[299_990:]
    download.close()
    assert download.read() == b""
