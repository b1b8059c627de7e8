"""A service's own database: SQLite in its data folder, or PostgreSQL; the same functions on both.

`database.py` is what services use, `writer.py` commits, `backend.py` says what both kinds must offer, `sqlite.py` and
`postgres.py` hold all that is special to one of them, `address.py` the settings of PostgreSQL.
"""

from services.grpckit.database.address import PostgresAddress
from services.grpckit.database.backend import SchemaTooNew
from services.grpckit.database.database import Database
from services.grpckit.database.writer import Rank
from services.grpckit.folder_lock import FolderLocked, StartRefused

__all__ = ["Database", "FolderLocked", "PostgresAddress", "Rank", "SchemaTooNew", "StartRefused"]
