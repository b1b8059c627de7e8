"""Any exception -> the lines that a person reads: what is wrong, where, and what to do."""

from tuneforge.errors import TABLE, InternalError, Reason, TuneforgeError, Unavailable
from tuneforge.manifest import IntegrityError, InvalidManifest, StoredDamage

_START_HINT = (
    "Start the suite with `make up` or `python -m services`, or give its address: --{0} or TUNEFORGE_{1}_ADDRESS."
)


def describe(error: Exception) -> str:
    """Returns the text for stderr, with the notes that a command has added to the error."""
    return "\n".join([_text(error), *getattr(error, "__notes__", ())])


def _text(error: Exception) -> str:
    if isinstance(error, TuneforgeError):
        return f"error: {_tuneforge(error)}"
    if isinstance(error, StoredDamage):
        return f"error: {error}\nThe registry's own copy is damaged. {TABLE[Reason.BLOB_DAMAGED].cure}"
    if isinstance(error, IntegrityError):
        return f"error: {error}\nNothing was kept under its final name. Run the command again."
    if isinstance(error, InvalidManifest):
        return f"error: {error}\nRemove or rename this file, then run the command again."
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"error: {place}{error.strerror or error}\nCheck the path, its permissions and the space on its disk."
    return (
        f"error: a fault of tuneforge itself: {type(error).__name__}: {error}\n"
        "Please report it, with what TUNEFORGE_DEBUG=1 shows."
    )


def _tuneforge(error: TuneforgeError) -> str:
    text = str(error)
    for field in error.fields[:1]:  # a service with one thing to say says it in the message too
        if len(error.fields) == 1 and field.description in error.message:
            text = f"{error.message}\n{error.cure}".rstrip()
    if isinstance(error, Unavailable) and error.reason == Reason.PEER_UNAVAILABLE and not error.request_id:
        words = error.message.split()
        service = words[1] if words[0] == "the" and len(words) > 1 else "scheduler"
        return f"{error.message}\n{_START_HINT.format(service, service.upper())}"
    if isinstance(error, InternalError) and error.request_id:
        return f"{text}\nRequest id: {error.request_id}."
    return text
