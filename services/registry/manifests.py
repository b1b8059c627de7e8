"""A manifest as a caller sends it: well formed, of the right digest, and all of its bytes stored in the project."""

from collections.abc import Iterable, Mapping, Sequence

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from tuneforge.manifest import InvalidManifest, Manifest, ManifestFile, check_path
from tuneforge.names import is_digest

MOST_FILES = 10_000
"""Files in one manifest; a request is limited to 4 MiB anyway, this only gives a better sentence."""
LARGEST_MANIFEST_BYTES = 3 * 1024 * 1024
"""As a message: who asks for the version later must be able to take the answer, 4 MiB with all the rest of it."""
_BYTES_PER_ENTRY = 80  # digest, size and framing of one file
_LONGEST_LIST = 40
"""Digests in an error's metadata: what fits into the trailers of a call, which clients cut at 8 KiB."""
_BUDGET_CHARACTERS = 3500
"""Text of all violations of one answer, for the same reason."""


def checked(files: Sequence[ManifestFile], digest: str) -> Manifest:
    """Returns the manifest of a request.

    Args:
        files: As sent, in any order.
        digest: As sent; empty lets the digest be computed.

    Raises:
        ServiceError: `INVALID_FIELD` with all malformed entries, `DIGEST_MISMATCH`.
    """
    if not files:
        raise invalid_fields([FieldViolation("manifest.files", "is empty; name at least one file")])
    if len(files) > MOST_FILES:
        problem = f"has {len(files)} entries; at most {MOST_FILES} are taken"
        raise invalid_fields([FieldViolation("manifest.files", problem)])
    if sum(len(file.path.encode()) + _BYTES_PER_ENTRY for file in files) > LARGEST_MANIFEST_BYTES:
        problem = f"takes more than {LARGEST_MANIFEST_BYTES} bytes; give shorter paths or fewer files"
        raise invalid_fields([FieldViolation("manifest.files", problem)])
    violations = [violation for number, file in enumerate(files) for violation in _entry(number, file)]
    if violations:
        raise invalid_fields(listed(violations))
    try:
        manifest = Manifest.of(files)
    except InvalidManifest as error:
        raise invalid_fields([FieldViolation("manifest.files", str(error))]) from None
    if digest and digest != manifest.digest:
        raise ServiceError(
            Reason.DIGEST_MISMATCH,
            f"manifest.digest is {digest[:64]!r}, but that of its files is {manifest.digest}",
            metadata={"expected": digest[:64], "found": manifest.digest},
        )
    return manifest


def _entry(number: int, file: ManifestFile) -> Iterable[FieldViolation]:
    field = f"manifest.files[{number}]"
    try:
        check_path(file.path)
    except InvalidManifest as error:
        yield FieldViolation(f"{field}.path", str(error))
    if not is_digest(file.sha256):
        yield FieldViolation(f"{field}.sha256", f"is {file.sha256[:80]!r}; give 64 lower-case hexadecimal digits")
    if file.size_bytes < 0:
        yield FieldViolation(f"{field}.size_bytes", f"is {file.size_bytes}; give 0 or more")


def require_stored(manifest: Manifest, sizes: Mapping[str, int]) -> None:
    """Refuses a manifest unless the project has all its blobs, in the sizes that it says.

    Args:
        manifest: A well-formed one.
        sizes: Digest -> size in bytes of those of its blobs that the project has.

    Raises:
        ServiceError: `BLOB_MISSING` with the digests in the metadata, `DIGEST_MISMATCH`.
    """
    missing = [file for file in manifest.files if file.sha256 not in sizes]
    if missing:
        digests = list(dict.fromkeys(file.sha256 for file in missing))
        raise ServiceError(
            Reason.BLOB_MISSING,
            f"{len(digests)} blobs are not stored in the project, the first is that of {missing[0].path!r}",
            metadata={"missing": ",".join(digests[:_LONGEST_LIST]), "num_missing": str(len(digests))},
        )
    for file in manifest.files:
        if file.size_bytes != sizes[file.sha256]:
            raise ServiceError(
                Reason.DIGEST_MISMATCH,
                f"{file.path!r} is given with {file.size_bytes} bytes, but its blob has {sizes[file.sha256]}",
                metadata={"path": file.path, "expected": str(file.size_bytes), "found": str(sizes[file.sha256])},
            )


def listed(violations: Sequence[FieldViolation], *, more: int = 0) -> list[FieldViolation]:
    """Returns as many violations as one answer can carry, the last one telling how many were left out.

    Args:
        violations: At least one.
        more: How many there are beyond those given.
    """
    taken: list[FieldViolation] = []
    left = _BUDGET_CHARACTERS
    for violation in violations:
        cut = FieldViolation(violation.field[:300], violation.description[:500], violation.reason)
        left -= len(cut.field) + len(cut.description) + len(cut.reason)
        if left < 0:
            break
        taken.append(cut)
    if rest := len(violations) - len(taken) + more:
        taken.append(FieldViolation(violations[-1].field.partition(":")[0][:300], f"and {rest} more problems"))
    return taken
