"""Manifests as callers send them."""

import pytest

from services.grpckit.errors import FieldViolation, Reason, ServiceError
from services.registry.manifests import LARGEST_MANIFEST_BYTES, MOST_FILES, checked, listed, require_stored
from tuneforge.manifest import Manifest, ManifestFile

FILE = ManifestFile("a", "0" * 64, 3)


def refusal(files: list[ManifestFile], digest: str = "") -> ServiceError:
    """Returns the error for a manifest that must be refused."""
    with pytest.raises(ServiceError) as caught:
        checked(files, digest)
    return caught.value


def test_order_does_not_matter_and_the_digest_is_computed() -> None:
    """The same files in any order, with or without the right digest, are one manifest."""
    other = ManifestFile("b", "1" * 64, 4)
    manifest = Manifest.of([FILE, other])
    assert checked([other, FILE], "") == checked([FILE, other], manifest.digest) == manifest


def test_too_many_files_are_refused() -> None:
    """The limit is told with the count."""
    files = [ManifestFile(f"f{number}", "0" * 64, 1) for number in range(MOST_FILES + 1)]
    assert "has 10001 entries" in str(refusal(files))


def test_a_manifest_that_no_answer_could_carry_is_refused() -> None:
    """Thousands of long paths are refused before the version is stored."""
    files = [ManifestFile(f"{'x' * 240}/{'y' * 240}/{number}", "0" * 64, 1) for number in range(9000)]
    assert str(LARGEST_MANIFEST_BYTES) in str(refusal(files))


@pytest.mark.parametrize("path", ["/etc/passwd", "a/../../b", "a//b", "a\\b", "", ".", "a\nb"])
def test_paths_that_escape_are_refused(path: str) -> None:
    """The entry is named by its place in the request."""
    error = refusal([FILE, ManifestFile(path, "0" * 64, 1)])
    assert [violation.field for violation in error.fields] == ["manifest.files[1].path"]


def test_a_path_comes_once_and_is_no_folder_of_another() -> None:
    """What no folder could hold is refused as a whole."""
    for clash in (FILE, ManifestFile("a/b", "0" * 64, 1)):
        assert refusal([FILE, clash]).fields[0].field == "manifest.files"


def test_sizes_must_be_those_of_the_blobs() -> None:
    """Missing blobs come before wrong sizes; both name the file."""
    manifest = Manifest.of([FILE])
    require_stored(manifest, {FILE.sha256: 3})
    for sizes, reason in (({}, Reason.BLOB_MISSING), ({FILE.sha256: 4}, Reason.DIGEST_MISMATCH)):
        with pytest.raises(ServiceError, match="'a'") as caught:
            require_stored(manifest, sizes)
        assert caught.value.reason is reason


def test_many_missing_blobs_fit_into_an_answer() -> None:
    """The metadata names the first forty digests and counts them all."""
    manifest = Manifest.of(ManifestFile(f"f{number}", f"{number:064x}", 1) for number in range(500))
    with pytest.raises(ServiceError) as caught:
        require_stored(manifest, {})
    assert len(caught.value.metadata["missing"].split(",")) == 40
    assert caught.value.metadata["num_missing"] == "500"


def test_lists_of_problems_are_cut_with_a_count() -> None:
    """Nothing is cut when it fits; else the last entry says how many were left out."""
    few = [FieldViolation("a", "b")] * 3
    assert listed(few) == few
    many = listed([FieldViolation("a:1", "x" * 1000)] * 100, more=11)
    assert sum(len(violation.description) for violation in many) < 4000
    assert many[-1] == FieldViolation("a", f"and {111 - (len(many) - 1)} more problems")
