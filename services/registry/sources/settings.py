"""The knobs of imports, from the environment; what may be fetched is in the operator's file (`allowances.py`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.grpckit.settings import Environment
from services.registry.sources import allowances

LARGEST_BYTES = 100 * 1024**3
LIMIT_S = 6 * 3600.0
KEPT_S = 7 * 86400.0
AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """How content is fetched from elsewhere."""

    file: Path | None = None
    """JSON file that says what may be fetched and with which credentials, see `allowances.py`; None: public
    repositories of the hub only. TUNEFORGE_REGISTRY_SOURCES_FILE."""
    largest_bytes: int = LARGEST_BYTES
    """Most bytes of one import, > 0. 100 GiB: a model of 50 billion weights. TUNEFORGE_REGISTRY_IMPORT_BYTES."""
    limit_s: float = LIMIT_S
    """Most seconds that one try may take, > 0. 6 hours: those 100 GiB at 5 MB/s; a further call goes on where it
    stopped. TUNEFORGE_REGISTRY_IMPORT_S."""
    kept_s: float = KEPT_S
    """Seconds without a new byte after which what an import left is removed at the next start. A week, like uploads.
    TUNEFORGE_REGISTRY_IMPORT_KEPT_S."""
    at_once: int = AT_ONCE
    """Imports that may run at once, >= 1. 4: each is a process of 20 to 40 MB that hashes what arrives.
    TUNEFORGE_REGISTRY_IMPORTS_AT_ONCE."""

    @classmethod
    def from_env(cls, env: Environment) -> Self:
        """Reads the settings, and the file once, so that a wrong one is told at the start."""
        file = env.file("TUNEFORGE_REGISTRY_SOURCES_FILE")
        if file is not None:
            try:
                allowances.load(file)
            except allowances.AllowancesUnreadable as error:
                env.problems.append(f"TUNEFORGE_REGISTRY_SOURCES_FILE: {error}")
        return cls(
            file=file,
            largest_bytes=env.integer("TUNEFORGE_REGISTRY_IMPORT_BYTES", default=LARGEST_BYTES, minimum=1),
            limit_s=env.seconds("TUNEFORGE_REGISTRY_IMPORT_S", default=LIMIT_S, minimum=1.0),
            kept_s=env.seconds("TUNEFORGE_REGISTRY_IMPORT_KEPT_S", default=KEPT_S),
            at_once=env.integer("TUNEFORGE_REGISTRY_IMPORTS_AT_ONCE", default=AT_ONCE, minimum=1, maximum=64),
        )
