"""The registry's settings, from the environment."""

from dataclasses import dataclass
from typing import Self

from services.grpckit.settings import Environment, ServerSettings

DEFAULT_PORT = 7101
RESERVE_BYTES = 256 * 1024 * 1024
UPLOAD_KEPT_S = 7 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """Every knob of the registry."""

    server: ServerSettings
    """What every service has; its `data` folder holds `registry.sqlite`, `blobs/` and `uploads/`."""
    reserve_bytes: int = RESERVE_BYTES
    """Space in bytes that uploads leave free on the disk. 256 MiB: the database goes on working when blobs fill the
    rest. TUNEFORGE_REGISTRY_RESERVE_BYTES."""
    upload_kept_s: float = UPLOAD_KEPT_S
    """Seconds without a new byte after which an unfinished upload is removed at the next start. A week: longer than any
    outage that a client waits out. TUNEFORGE_REGISTRY_UPLOAD_KEPT_S."""

    @classmethod
    def from_env(cls) -> Self:
        """Reads all settings.

        Raises:
            SettingsError: With all problems at once.
        """
        env = Environment()
        settings = cls(
            server=ServerSettings.from_env("registry", DEFAULT_PORT, env=env),
            reserve_bytes=env.integer("TUNEFORGE_REGISTRY_RESERVE_BYTES", default=RESERVE_BYTES),
            upload_kept_s=env.seconds("TUNEFORGE_REGISTRY_UPLOAD_KEPT_S", default=UPLOAD_KEPT_S),
        )
        env.finish()
        return settings
