"""Principals of a service that asks for tokens: a file of them, and the metadata of each one's calls."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def tokens_file(
    folder: Path, roles: Mapping[str, Sequence[str]], *, projects: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Writes a token for each principal, and returns the file.

    Args:
        folder: For the file.
        roles: Name of each principal -> its roles; who has the role service may speak for others.
        projects: Name -> ids of the projects it may touch; those not named may touch all.
    """
    entries = [
        {
            "token_sha256": hashlib.sha256(_token(name).encode()).hexdigest(),
            "principal": name,
            "roles": list(own),
            "projects": list((projects or {}).get(name, ["*"])),
            "is_service": "service" in own,
        }
        for name, own in roles.items()
    ]
    path = folder / "tokens.json"
    path.write_text(json.dumps(entries))
    return path


def of(name: str) -> list[tuple[str, str]]:
    """Returns the metadata of a principal's calls."""
    return [("authorization", f"Bearer {_token(name)}")]


def _token(name: str) -> str:
    return f"token-of-{name}".ljust(40, "x")
