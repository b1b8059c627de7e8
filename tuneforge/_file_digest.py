"""The SHA-256 of a file that is on its way: found in a thread of its own, beside whoever reads it to send it.

Both read the same pages of the system's cache. A file that changes meanwhile gives a digest that its bytes do not have.
"""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

_READ_BYTES = 1024 * 1024


class FileDigest:
    """Reads a file from its beginning; to be used in a `with` block, whose end stops the reading."""

    def __init__(self, path: Path) -> None:
        self._is_wanted = True
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tuneforge-digest")
        self._found = self._thread.submit(self._read, path)

    def result(self) -> str:
        """Returns the digest, 64 lower-case hexadecimal digits; waits for it.

        Raises:
            OSError: The file cannot be read, or the block has ended before.
        """
        return self._found.result()

    def _read(self, path: Path) -> str:
        hasher, buffer = sha256(), memoryview(bytearray(_READ_BYTES))
        with path.open("rb", buffering=0) as file:
            while read := file.readinto(buffer):
                if not self._is_wanted:
                    raise OSError(f"the digest of {path} is not wanted any more")
                hasher.update(buffer[:read])
        return hasher.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_wanted = False
        self._thread.shutdown()
