"""The registry's settings, from the environment."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from services.grpckit.database import PostgresAddress
from services.grpckit.settings import Environment, ServerSettings
from services.registry.blobs.settings import StorageSettings
from services.registry.promotions.settings import PromotionSettings
from services.registry.recipes.settings import RecipeSettings
from services.registry.sources.settings import SourceSettings

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
    postgres: PostgresAddress | None = None
    """The database on a PostgreSQL server; None: SQLite in the data folder. TUNEFORGE_REGISTRY_DATABASE_URL with the
    password in ..._DATABASE_PASSWORD_FILE or ..._DATABASE_PASSWORD."""

    signing_key: Path | None = None
    """File with the private key that versions are signed with, and below it those that signed before (unencrypted PEM,
    EC on P-256, P-384 or P-521); None: a P-256 key in the data folder, made at the first use. Several registries on one
    database need the same file. TUNEFORGE_REGISTRY_SIGNING_KEY."""
    storage: StorageSettings = field(default_factory=StorageSettings)
    """Where blobs live, and how long what nobody needs is kept."""
    recipes: RecipeSettings = field(default_factory=RecipeSettings)
    """Where the operator's recipes are."""
    sources: SourceSettings = field(default_factory=SourceSettings)
    """How content is fetched from elsewhere."""
    promotions: PromotionSettings = field(default_factory=PromotionSettings)
    """Where promoted versions are copied to."""

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
            signing_key=env.file("TUNEFORGE_REGISTRY_SIGNING_KEY"),
            upload_kept_s=env.seconds("TUNEFORGE_REGISTRY_UPLOAD_KEPT_S", default=UPLOAD_KEPT_S),
            postgres=PostgresAddress.from_env("registry", env),
            storage=StorageSettings.from_env(env),
            recipes=RecipeSettings.from_env(env),
            sources=SourceSettings.from_env(env),
            promotions=PromotionSettings.from_env(env),
        )
        env.finish()
        return settings
