"""Both real stores of one suite: PostgreSQL with a database a service, S3 with a bucket for the registry's blobs."""

from __future__ import annotations

from pathlib import Path

from services.stores.postgres import LocalPostgres
from services.stores.seaweedfs import LocalS3

BUCKET = "tuneforge"
WITH_DATABASE = ("registry", "scheduler", "inference")


class RealStores:
    """The two servers, started and ended together.

    Args:
        folder: Holds the data of both.
    """

    def __init__(self, folder: Path) -> None:
        self.postgres = LocalPostgres(folder / "postgres")
        self.s3 = LocalS3(folder / "s3")
        self._is_running = False

    def start(self) -> None:
        """Starts both, unless they run, and makes the databases and the bucket that are missing.

        Raises:
            StoreFailed: One does not start; the other one is ended again.
        """
        if self._is_running:
            return
        try:
            self.postgres.start()
            for service in WITH_DATABASE:
                if not self.postgres.has_database(service):
                    self.postgres.create_database(service)
            self.s3.start(BUCKET)
        except BaseException:
            self.stop()
            raise
        self._is_running = True

    def stop(self) -> None:
        """Ends both; the services must have ended before."""
        self._is_running = False
        self.s3.stop()
        self.postgres.stop()

    def first_exit(self) -> tuple[str, int] | None:
        """Returns the name and exit code of a server that has ended by itself, if any."""
        for name, server in (("PostgreSQL", self.postgres), ("S3 server", self.s3)):
            code = server.ended()
            if code is not None:
                return name, code
        return None

    def environment(self) -> dict[str, str]:
        """Returns the settings by which the services use these stores; they name files with secrets, and hold none."""
        variables = {
            "TUNEFORGE_REGISTRY_BLOBS": f"s3://{BUCKET}/blobs",
            "TUNEFORGE_REGISTRY_S3_ENDPOINT": self.s3.endpoint,
            "TUNEFORGE_REGISTRY_S3_CREDENTIALS": str(self.s3.credentials_file),
        }
        for service in WITH_DATABASE:
            address = self.postgres.address(service)
            variables[f"TUNEFORGE_{service.upper()}_DATABASE_URL"] = str(address.url)
            variables[f"TUNEFORGE_{service.upper()}_DATABASE_PASSWORD_FILE"] = str(address.password_file)
        return variables
