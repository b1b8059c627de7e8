"""The SDK's transfers against a registry on a real socket that breaks off streams."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_registry_small import FakeRegistry, serve
from tuneforge._transport import RetryPolicy
from tuneforge.blobs import BlobClient
from tuneforge.errors import InvalidArgument, NotFound, Reason, Unavailable
from tuneforge.manifest import IntegrityError, build, verify

QUICK = RetryPolicy(initial_s=0.001, max_s=0.01, budget_s=5.0)
CONTENT = random.Random(0).randbytes(30_123)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def fake() -> FakeRegistry:
    """A registry without blobs."""
    return FakeRegistry()


@pytest.fixture
def client(fake: FakeRegistry) -> Iterator[BlobClient]:
    """A client of it, with short waits."""
    with serve(fake) as address, BlobClient.connect(address, "default", retry=QUICK) as client:
        yield client


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 30 chunks and a bit."""
    path = tmp_path / "weights.bin"
    path.write_bytes(CONTENT)
    return path


def test_an_upload_that_breaks_off_goes_on_where_it_stopped(client: BlobClient, fake: FakeRegistry, file: Path) -> None:
    """Every byte is sent once although the stream breaks five times."""
    fake.breaks = 5
    entry = client.upload_file(file)
    assert (entry.path, entry.sha256, entry.size_bytes) == ("weights.bin", DIGEST, len(CONTENT))
    assert fake.stored == {DIGEST: CONTENT}
    assert fake.calls.count("UploadBlob") == 6


def test_what_the_registry_has_is_not_sent_again(client: BlobClient, fake: FakeRegistry, file: Path) -> None:
    """A second upload of the same content moves no byte, and progress still reaches the whole size."""
    client.upload_file(file)
    told: list[int] = []
    client.upload_file(file, progress=told.append)
    assert fake.calls.count("UploadBlob") == 1
    assert sum(told) == len(CONTENT)


def test_an_upload_continues_one_of_another_process(client: BlobClient, fake: FakeRegistry, file: Path) -> None:
    """Bytes that the registry holds from before are not sent again."""
    fake.partial[DIGEST] = bytearray(CONTENT[:20_000])
    client.upload_file(file)
    assert fake.stored == {DIGEST: CONTENT}


def test_an_empty_file_is_a_blob_too(client: BlobClient, fake: FakeRegistry, tmp_path: Path) -> None:
    """A file of no bytes is stored under the digest of nothing."""
    (tmp_path / "empty").touch()
    entry = client.upload_file(tmp_path / "empty")
    assert fake.stored == {entry.sha256: b""}
    client.download(entry.sha256, 0, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every file sent as a large one: its digest last."""
    monkeypatch.setattr("tuneforge._uploads.HASH_FIRST_BYTES", 1)


@pytest.mark.usefixtures("at_once")
def test_a_large_file_is_sent_before_its_digest_is_known(client: BlobClient, fake: FakeRegistry, file: Path) -> None:
    """Every byte goes once although the stream breaks five times; another process finds the same unfinished upload."""
    fake.breaks = 5
    assert client.upload_file(file).sha256 == DIGEST
    assert (fake.stored, fake.partial, fake.calls.count("UploadBlob")) == ({DIGEST: CONTENT}, {}, 6)
    fake.stored.clear()
    fake.breaks = 10**6
    impatient = RetryPolicy(initial_s=0.001, max_s=0.01, budget_s=0.0)
    client._calls.retry = impatient
    with pytest.raises(Unavailable):
        client.upload_file(file)
    fake.break_every, fake.breaks = len(CONTENT) - 2000, 1
    client._calls.retry = QUICK
    assert client.upload_file(file).sha256 == DIGEST
    assert (fake.stored, fake.partial, fake.breaks) == ({DIGEST: CONTENT}, {}, 1)


@pytest.mark.usefixtures("at_once")
def test_a_large_file_that_is_stored_is_not_sent(client: BlobClient, fake: FakeRegistry, file: Path) -> None:
    """A blob of its size makes the client ask by digest; so does an answer that was lost."""
    fake.loses_answers = 1
    client.upload_file(file)
    client.upload_file(file)
    assert fake.calls.count("UploadBlob") == 1


@pytest.mark.usefixtures("at_once")
def test_a_large_file_goes_to_an_older_registry_too(client: BlobClient, fake: FakeRegistry, file: Path) -> None:
    """One that knows uploads by digest alone is told the digest first."""
    fake.is_old = True
    client.upload_file(file)
    assert fake.stored == {DIGEST: CONTENT}


@pytest.mark.usefixtures("at_once")
def test_a_damaged_beginning_is_sent_anew(client: BlobClient, fake: FakeRegistry, file: Path) -> None:
    """What another process had sent and is not this file's is found by the digest, once; then all is sent."""
    fake.breaks = 1
    client._calls.retry = RetryPolicy(budget_s=0.0)
    with pytest.raises(Unavailable):
        client.upload_file(file)
    client._calls.retry = QUICK
    (held,) = fake.partial.values()
    held[0] ^= 1
    client.upload_file(file)
    assert (fake.stored, fake.partial) == ({DIGEST: CONTENT}, {})


@pytest.mark.usefixtures("at_once")
def test_a_large_file_that_changes_is_noticed(
    client: BlobClient, fake: FakeRegistry, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent is not what was hashed: the registry refuses it, and nothing is kept."""
    monkeypatch.setattr("tuneforge._uploads.FileDigest.result", lambda _self: "0" * 64)
    with pytest.raises(InvalidArgument) as caught:
        client.upload_file(file)
    assert (caught.value.reason, fake.stored, fake.partial) == (Reason.DIGEST_MISMATCH, {}, {})


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    client: BlobClient, fake: FakeRegistry, tmp_path: Path
) -> None:
    """The file is whole after five breaks, and nothing else is left in the folder."""
    fake.stored[DIGEST] = CONTENT
    fake.breaks = 5
    told: list[int] = []
    client.download(DIGEST, len(CONTENT), tmp_path / "a" / "out", progress=told.append)
    assert (tmp_path / "a" / "out").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    assert sum(told) == len(CONTENT)


def test_a_download_continues_one_of_another_process(client: BlobClient, fake: FakeRegistry, tmp_path: Path) -> None:
    """A part left by a killed process is gone on with."""
    fake.stored[DIGEST] = CONTENT
    (tmp_path / f".out.{DIGEST[:16]}.part").write_bytes(CONTENT[:29_000])
    fake.break_every, fake.breaks = 2000, 1  # more than what is missing: would break a download from the beginning
    client.download(DIGEST, len(CONTENT), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert fake.breaks == 1


def test_a_damaged_part_is_thrown_away(client: BlobClient, fake: FakeRegistry, tmp_path: Path) -> None:
    """A part with other bytes is noticed by the digest, and the blob is fetched from the beginning."""
    fake.stored[DIGEST] = CONTENT
    (tmp_path / f".out.{DIGEST[:16]}.part").write_bytes(b"x" * 1000)
    client.download(DIGEST, len(CONTENT), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_wrong_bytes_never_get_the_final_name(client: BlobClient, fake: FakeRegistry, tmp_path: Path) -> None:
    """A registry that sends other bytes is refused with expected and found digest."""
    fake.stored[DIGEST] = CONTENT[:-1] + b"!"
    with pytest.raises(IntegrityError, match=DIGEST):
        client.download(DIGEST, len(CONTENT), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_blob_that_is_too_short_is_refused(client: BlobClient, fake: FakeRegistry, tmp_path: Path) -> None:
    """A stream that ends early without an error does not make a file."""
    fake.stored[DIGEST] = CONTENT[:5000]
    with pytest.raises(IntegrityError, match="30123 bytes"):
        client.download(DIGEST, len(CONTENT), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_travels_there_and_back(client: BlobClient, fake: FakeRegistry, tmp_path: Path) -> None:
    """Upload and download of a folder keep its manifest."""
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a.json").write_text("{}")
    (source / "deep" / "b.bin").write_bytes(CONTENT)
    manifest = client.upload_folder(source)
    assert manifest == build(source)
    client.download_folder(manifest, tmp_path / "target")
    verify(tmp_path / "target", manifest)


def test_a_missing_blob_is_a_typed_error(client: BlobClient, tmp_path: Path) -> None:
    """NOT_FOUND is raised at once, and no file is made."""
    with pytest.raises(NotFound):
        client.download(DIGEST, 5, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_registry_is_given_up_after_the_budget(file: Path) -> None:
    """Without any answer the upload ends with an error that names the peer's state."""
    with serve(FakeRegistry()) as address:
        pass
    impatient = RetryPolicy(initial_s=0.001, max_s=0.01, budget_s=0.2)
    with (
        BlobClient.connect(address, "default", retry=impatient) as client,
        pytest.raises(Unavailable, match="registry"),
    ):
        client.upload_file(file)


def test_a_file_that_changes_during_the_upload_is_noticed(
    client: BlobClient, fake: FakeRegistry, tmp_path: Path
) -> None:
    """The registry's check of the digest reaches the caller as an exception."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"before")
    manifest = build(folder)
    (folder / "a").write_bytes(b"after!")
    with pytest.raises(InvalidArgument):
        client.upload_manifest(folder, manifest)
    assert fake.stored == {}
