"""Blobs as files: parts, take-overs, restarts in the middle, and a disk that refuses."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.grpckit.errors import Reason, ServiceError
from services.registry.blobs.folder import BlobFiles

CONTENT = os.urandom(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFiles:
    """Gives an empty folder of blobs."""
    return fresh(tmp_path)


def fresh(folder: Path) -> BlobFiles:
    """Returns the blobs of a folder as a process that has just started sees them."""
    blobs = BlobFiles(folder, reserve_bytes=0)
    blobs.prepare(upload_kept_s=3600)
    return blobs


def test_a_part_goes_on_in_another_process(tmp_path: Path, blobs: BlobFiles) -> None:
    """The bytes on disk are hashed again by the process that goes on, so the whole is verified, not the rest."""
    upload = blobs.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT[:100_000])
    upload.close()
    upload = fresh(tmp_path).begin_upload("p", DIGEST, len(CONTENT), 100_000)
    upload.append(CONTENT[100_000:])
    assert upload.finish()
    upload.close()
    assert blobs.path(DIGEST).read_bytes() == CONTENT


def test_a_part_that_rotted_is_found(tmp_path: Path, blobs: BlobFiles) -> None:
    """A part whose bytes changed on disk, as after a loss of power, is thrown away at its end."""
    upload = blobs.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT[:100_000])
    upload.close()
    part = tmp_path / "uploads" / "p" / f"{DIGEST}.part"
    part.write_bytes(bytes(100_000))
    upload = fresh(tmp_path).begin_upload("p", DIGEST, len(CONTENT), 100_000)
    upload.append(CONTENT[100_000:])
    with pytest.raises(ServiceError) as caught:
        upload.finish()
    upload.close()
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert not part.exists()
    assert not blobs.path(DIGEST).exists()


def test_a_part_that_is_whole_needs_no_more_bytes(tmp_path: Path, blobs: BlobFiles) -> None:
    """Killed between the last byte and the rename: the next stream only finishes it."""
    upload = blobs.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT)
    upload.close()
    upload = fresh(tmp_path).begin_upload("p", DIGEST, len(CONTENT), len(CONTENT))
    assert upload.finish()
    upload.close()


def test_the_older_stream_cannot_write_into_a_finished_blob(blobs: BlobFiles) -> None:
    """A stream that was overtaken, even by one that finished, is refused and the blob stays as it is."""
    old = blobs.begin_upload("p", DIGEST, len(CONTENT), 0)
    old.append(CONTENT[:1000])
    new = blobs.begin_upload("p", DIGEST, len(CONTENT), 1000)
    new.append(CONTENT[1000:])
    assert new.finish()
    new.close()
    for late in (lambda: old.append(b"x"), old.finish):
        with pytest.raises(ServiceError) as caught:
            late()
        assert caught.value.reason is Reason.OFFSET_MISMATCH
    old.close()
    assert blobs.path(DIGEST).read_bytes() == CONTENT


def test_two_projects_store_the_same_bytes_once(blobs: BlobFiles) -> None:
    """Each sends the whole; the second rename puts equal bytes over equal bytes."""
    for project in ("a", "b"):
        upload = blobs.begin_upload(project, DIGEST, len(CONTENT), 0)
        upload.append(CONTENT)
        assert upload.finish()
        upload.close()
    assert blobs.path(DIGEST).read_bytes() == CONTENT


def test_another_size_than_before_starts_anew(blobs: BlobFiles) -> None:
    """A part that is longer than the size now announced is thrown away."""
    upload = blobs.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT[:1000])
    upload.close()
    with pytest.raises(ServiceError) as caught:
        blobs.begin_upload("p", DIGEST, 10, 10)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert blobs.committed_bytes("p", DIGEST) == 0


def test_a_disk_that_fills_up_keeps_what_was_there(tmp_path: Path) -> None:
    """A write that the system refuses half-way is undone to the last whole chunk; the upload can go on later."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from services.registry.blobs.folder import BlobFiles\n"
        "from services.grpckit.errors import ServiceError\n"
        "blobs = BlobFiles(Path(sys.argv[1]), reserve_bytes=0); blobs.prepare(upload_kept_s=9)\n"
        "upload = blobs.begin_upload('p', '0' * 64, 200_000, 0)\n"
        "upload.append(bytes(50_000))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))\n"
        "try: upload.append(bytes(50_000))\n"
        "except ServiceError as error: print(error.reason, blobs.committed_bytes('p', '0' * 64))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DISK_FULL", "50000"]


def test_nothing_is_remembered_of_ended_uploads(blobs: BlobFiles) -> None:
    """Memory does not grow with the number of uploads, ended well or not."""
    for number in range(5):
        upload = blobs.begin_upload("p", f"{number:064x}", 10, 0)
        upload.append(b"12345")
        upload.close()
        upload.close()
    assert not blobs._parts


def test_a_closed_download_reads_nothing(blobs: BlobFiles) -> None:
    """A read that comes after the close, from a thread that was slow, is harmless."""
    upload = blobs.begin_upload("p", DIGEST, len(CONTENT), 0)
    upload.append(CONTENT)
    assert upload.finish()
    upload.close()
    download = blobs.open(DIGEST, 299_990)
    assert download.read() == CONTENT[299_990:]
    download.close()
    assert download.read() == b""
