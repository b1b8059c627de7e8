"""Messages of signatures <-> plain values."""

from services.registry.signing.store import StoredKey
from services.registry.signing.verification import Progress
from services.registry.wire import timestamp
from tuneforge.signatures import Signature
from tuneforge.v1 import signing_pb2 as pb

KEYS = "signingKeys"
"""First part of a key's name."""


def signature_to_proto(signature: Signature) -> pb.Signature:
    """Converts a signature to its message."""
    return pb.Signature(key_id=signature.key_id, value=signature.value)


def key_to_proto(stored: StoredKey, current: str) -> pb.SigningKey:
    """Converts a public key to its message.

    Args:
        stored: The key and when it was first used.
        current: Id of the key that signs now.
    """
    key, time_us = stored
    return pb.SigningKey(
        name=f"{KEYS}/{key.key_id}",
        key_id=key.key_id,
        public_key=key.pem,
        create_time=timestamp(time_us),
        is_current=key.key_id == current,
        endorsed_by=key.endorsed_by,
        endorsement=key.endorsement,
    )


def progress_to_proto(progress: Progress) -> pb.VerifyVersionResponse:
    """Converts how far a verification is to its message."""
    return pb.VerifyVersionResponse(
        path=progress.path,
        verified_bytes=progress.verified_bytes,
        total_bytes=progress.total_bytes,
        is_done=progress.is_done,
        problems=(
            pb.VerificationProblem(path=each.path, reason=each.reason.value, message=each.message)
            for each in progress.problems
        ),
    )
