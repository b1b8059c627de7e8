"""The deploy location, from the environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.grpckit.settings import Environment
from services.registry.blobs.settings import S3Settings, s3_from_env
from services.registry.promotions.location import Location

VARIABLE = "TUNEFORGE_REGISTRY_DEPLOY_LOCATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionSettings:
    """Where promoted versions are copied to. TUNEFORGE_REGISTRY_DEPLOY_LOCATION; unset: nothing can be promoted."""

    folder: Path | None = None
    """An absolute path."""
    s3: S3Settings | None = None
    """`s3://bucket/prefix`, reached with the endpoint and credentials of TUNEFORGE_REGISTRY_S3_*."""

    @classmethod
    def from_env(cls, env: Environment) -> Self:
        """Reads the settings; problems are noted in `env`."""
        value = env.text(VARIABLE).strip()
        if not value:
            return cls()
        if value.startswith("s3://"):
            return cls(s3=s3_from_env(env, VARIABLE))
        if not value.startswith("/"):
            env.refuse(VARIABLE, "the absolute path of a folder, or s3://bucket/prefix")
            return cls()
        return cls(folder=Path(value))

    def location(self) -> Location | None:
        """Returns the place; None when there is none."""
        if self.folder is not None:
            from services.registry.promotions.folder_location import FolderLocation

            return FolderLocation(self.folder)
        if self.s3 is not None:
            from services.registry.promotions.bucket_location import BucketLocation

            return BucketLocation(self.s3)
        return None
