"""The bytes of a file, piece by piece: decompressed within limits, and as lines of any kind of line end."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from tuneforge.data.faults import MissingExtra
from tuneforge.data.formats.parsed import MIB, DataFile, Limits
from tuneforge.data.problems import ProblemCode, RowFault

PIECE_BYTES: Final = 1 * MIB
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_OTHER_ARCHIVES: Final = {b"PK\x03\x04": "a zip archive", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7-Zip"}
_RATIO_FROM: Final = 64 * MIB
_REPACK: Final = "Compress it again with gzip or zstd, or give it as it is."


def stem_of(path: str) -> str:
    """Returns a path without the suffix of its compression, in lower case."""
    lower = path.lower()
    for suffix in (".gz", ".zst", ".zstd"):
        if lower.endswith(suffix):
            return lower.removesuffix(suffix)
    return lower


def check_regular(path: Path) -> os.stat_result:
    """Returns what the file system says of a regular file.

    Raises:
        RowFault: it is missing, a folder, a pipe, a device or a socket.
    """
    try:
        status = path.stat()
    except OSError as error:
        message = f"It cannot be opened: {error.strerror}."
        raise RowFault(ProblemCode.NOT_REGULAR_FILE, message, "Give a file that is there.") from None
    if not stat.S_ISREG(status.st_mode):
        raise RowFault(ProblemCode.NOT_REGULAR_FILE, "It is no regular file.", "Give a regular file.")
    return status


def pieces(file: DataFile, limits: Limits) -> Iterator[bytes]:
    """Yields the content of a file, decompressed when its name ends in `.gz`, `.zst` or `.zstd`.

    Raises:
        RowFault: it is no regular file, its archive is damaged or expands too far, or it changed while it was read.
    """
    before = check_regular(file.local)
    is_packed = stem_of(file.path) != file.path.lower()
    with file.local.open("rb") as opened:
        head = opened.read(8)
        opened.seek(0)
        _check_head(file, head, is_packed=is_packed)
        if not is_packed:
            while piece := opened.read(PIECE_BYTES):
                yield piece
        else:
            yield from _unpacked(opened, head, limits)
        after = os.fstat(opened.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        message = "The file changed while it was read."
        raise RowFault(ProblemCode.DATASET_CHANGED, message, "Give it again when nobody writes to it.")


def _check_head(file: DataFile, head: bytes, *, is_packed: bool) -> None:
    kind = "gzip" if head.startswith(_GZIP) else "zstd" if head.startswith(_ZSTD) else ""
    if is_packed:
        expected = "gzip" if file.path.lower().endswith(".gz") else "zstd"
        if kind != expected:
            message = f"Its name says {expected}, its bytes do not."
            raise RowFault(ProblemCode.CORRUPT_ARCHIVE, message, "Rename it, or compress it again.")
        return
    kind = kind or next((name for magic, name in _OTHER_ARCHIVES.items() if head.startswith(magic)), "")
    if kind:
        message = f"It is {kind}, but its name does not say so."
        cure = "Let its name end in .gz or .zst." if kind in {"gzip", "zstd"} else "Unpack it; give gzip or zstd."
        raise RowFault(ProblemCode.CORRUPT_ARCHIVE, message, cure)


def _unpacked(opened: IO[bytes], head: bytes, limits: Limits) -> Iterator[bytes]:
    """Yields the content of a compressed file.

    Raises:
        RowFault: it is damaged, compressed twice, or expands too far.
    """
    made, held = 0, b""
    try:
        for piece in _gzip(opened) if head.startswith(_GZIP) else _zstd(opened):
            if not made and piece.startswith((_GZIP, _ZSTD)):
                raise RowFault(ProblemCode.CORRUPT_ARCHIVE, "It is compressed twice.", "Compress it once.")
            made += len(piece)
            ratio = made / max(1, opened.tell())
            if made > limits.decompressed_bytes or (made > _RATIO_FROM and ratio > limits.decompression_ratio):
                message = f"Its content is more than {made // MIB} MiB, {ratio:.0f} times its size so far."
                raise RowFault(ProblemCode.DECOMPRESSION_LIMIT, message, "Give it uncompressed, or in several files.")
            held += piece
            if len(held) >= PIECE_BYTES // 4:
                yield held
                held = b""
    except (EOFError, OSError, zlib.error, _Damaged) as error:
        message = f"The archive is damaged or cut off after {made} bytes of content."
        raise RowFault(ProblemCode.CORRUPT_ARCHIVE, message, _REPACK) from error
    if held:
        yield held


class _Damaged(Exception):
    """Bytes that zstd cannot read."""


def _gzip(opened: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=opened, mode="rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


def _zstd(opened: IO[bytes]) -> Iterator[bytes]:
    """Yields the content of all frames; fed by so little that a bomb goes off in small pieces."""
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra("zstandard", "Reading .zst files", "formats") from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=128 * MIB)
    frame: Any = None
    while packed := opened.read(2048):
        while packed:
            frame = frame or decompressor.decompressobj()
            try:
                piece = frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise _Damaged from error
            if piece:
                yield piece
            packed = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError


def lines(content: Iterator[bytes], row_bytes: int) -> Iterator[tuple[int, bytes | None, bool]]:
    """Yields (number, line with its end, whether an end is there); a line is ended by LF, CR LF or CR.

    Args:
        content: pieces of a file.
        row_bytes: longest line; of a longer one, None is yielded in place of its bytes.

    Raises:
        RowFault: a longer line is binary.
    """
    number = 0
    rest = b""
    is_skipping = False
    for piece in content:
        parts = (rest + piece).splitlines(keepends=True)
        rest = b"" if parts[-1].endswith(b"\n") else parts.pop()
        for part in parts:
            number += 1
            yield number, None if is_skipping or len(part) > row_bytes + 2 else part, True
            is_skipping = False
        if len(rest) > row_bytes + 2:
            if b"\0" in rest[:4096]:  # a sparse or binary file, of which the end may be far away
                message = f"Line {number + 1} is long and holds NUL, so the file is no text."
                raise RowFault(ProblemCode.NUL_BYTE, message, "Give a text file.", column=1)
            is_skipping = True
            rest = rest[-1:] if rest.endswith(b"\r") else b"."
    if rest:
        number += 1
        yield number, None if is_skipping else rest, rest.endswith(b"\r")


def guess_encoding(head: bytes) -> str:
    """Returns what encoding text that is not UTF-8 seems to have."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    zeros = [index for index, byte in enumerate(head[:400]) if byte == 0]
    if len(zeros) > 0.9 * len(head[:400]):
        return "binary data"
    if len(zeros) > len(head[:400]) // 4:
        return "UTF-32" if len(zeros) > len(head[:400]) // 2 + 8 else "UTF-16"
    try:
        text = head.decode("cp1252")
    except UnicodeDecodeError:
        return "Latin-1 or another 8-bit encoding"
    words = sum(char.isalpha() or char.isspace() or char.isascii() for char in text)
    return "Windows-1252 or Latin-1" if words > 0.9 * len(text) else "binary data"


def check_start(head: bytes) -> None:
    """Raises when a text file begins like UTF-16 or UTF-32.

    Raises:
        RowFault: it does.
    """
    guess = guess_encoding(head[:400]) if b"\0" in head[:400] or head.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    if guess.startswith("UTF-"):
        message = f"The file is not UTF-8; it looks like {guess}."
        raise RowFault(ProblemCode.NOT_UTF8, message, "Save the file as UTF-8.", column=1)


def decoded(line: bytes) -> str:
    """Returns a line as text.

    Raises:
        RowFault: it is not UTF-8, or holds NUL.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        guess = guess_encoding(line)
        message = (
            f"Byte {error.start + 1} of the line, 0x{line[error.start]:02x}, is not UTF-8; the line looks like {guess}."
        )
        column = len(line[: error.start].decode("utf-8", "replace")) + 1
        raise RowFault(ProblemCode.NOT_UTF8, message, "Save the file as UTF-8.", column=column) from None
    if "\0" in text:
        column = text.index("\0") + 1
        message = f"Character {column} of the line is NUL, which is no text."
        raise RowFault(ProblemCode.NUL_BYTE, message, "Take it out, or write the file again.", column=column)
    return text
