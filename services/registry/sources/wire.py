"""Messages of imports to values and back."""

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.sources.imports import Progress
from services.registry.sources.wanted import Ask, Wanted
from tuneforge.v1 import sources_pb2

_MOST_PATTERNS = 32
_LONGEST_PATTERN = 256
_LONGEST_WORD = 63

FETCHING = sources_pb2.ImportProgress.PHASE_FETCHING
LISTING = sources_pb2.ImportProgress.PHASE_LISTING
EXAMINING = sources_pb2.ImportProgress.PHASE_EXAMINING


def ask_of(
    project: str, kind: str, location: sources_pb2.Location, *, source_split: str = "", source_config: str = ""
) -> Ask:
    """Returns what is to be fetched.

    Args:
        project: Id of the project that the blobs become visible in.
        kind: `dataset` or `model`.
        location: As sent.
        source_split: As sent; of a data set.
        source_config: As sent; of a data set.

    Raises:
        ServiceError: `INVALID_FIELD` with all fields that are too long; the address is checked later.
    """
    violations = []
    if len(location.include) > _MOST_PATTERNS:
        problem = f"has {len(location.include)} patterns; at most {_MOST_PATTERNS} are taken"
        violations.append(FieldViolation("location.include", problem))
    for number, pattern in enumerate(location.include[:_MOST_PATTERNS]):
        if not 1 <= len(pattern) <= _LONGEST_PATTERN:
            problem = f"has {len(pattern)} characters; give 1 to {_LONGEST_PATTERN}"
            violations.append(FieldViolation(f"location.include[{number}]", problem))
    words = {"location.connection": location.connection, "source_split": source_split, "source_config": source_config}
    for field, text in words.items():
        if len(text) > _LONGEST_WORD:
            problem = f"has {len(text)} characters; at most {_LONGEST_WORD} are taken"
            violations.append(FieldViolation(field, problem))
    if violations:
        raise invalid_fields(violations)
    wanted = Wanted(kind=kind, include=tuple(location.include), split=source_split, config=source_config)
    return Ask(project=project, uri=location.uri, connection=location.connection, wanted=wanted)


def progress_to_proto(
    progress: Progress, phase: sources_pb2.ImportProgress.Phase.ValueType
) -> sources_pb2.ImportProgress:
    """Returns the message of how far an import is."""
    return sources_pb2.ImportProgress(
        phase=phase,
        file=progress.file,
        file_bytes=progress.file_bytes,
        file_size_bytes=progress.file_size_bytes,
        files_done=progress.files_done,
        files=progress.files,
        bytes_done=progress.bytes_done,
        bytes=progress.size_bytes,
    )
