"""Images as rows: what an image is, by its bytes, and which label it has.

A row keeps the digest, the kind and the size of an image, not its pixels; these stay in the file.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from tuneforge.data.faults import MissingExtra
from tuneforge.data.formats.content import check_regular
from tuneforge.data.formats.layout import PARTS
from tuneforge.data.formats.parsed import MIB, DataFile, Limits, RawRow
from tuneforge.data.problems import ProblemCode, RowFault, kind_of

KINDS: Final = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
_LARGEST: Final = 256 * MIB
_LABEL_CURE: Final = "Put each image into a folder that is named like its label."


def read_image(file: DataFile, limits: Limits) -> Iterator[RawRow]:
    """Yields the one row of an image file: its label is the name of the folder that it lies in."""
    try:
        label = PurePosixPath(file.path).parent.name
        if not label:
            raise RowFault(ProblemCode.BAD_LABEL, "The image lies in no folder, so it has no label.", _LABEL_CURE)
        if label.lower() in PARTS:
            message = f"Its folder `{label}` names a part of the data, not a label."
            raise RowFault(ProblemCode.BAD_LABEL, message, _LABEL_CURE)
        yield RawRow(1, {"image": described(file.local, limits), "label": label}, raw=file.path)
    except RowFault as fault:
        yield RawRow(1, None, fault, file.path)


def resolved(value: Any, table: DataFile, gallery: dict[str, DataFile], limits: Limits) -> dict[str, Any]:
    """Returns what an image is that a table's cell names by its path or holds as bytes.

    Args:
        value: the cell: a path relative to the table or to the data set, or an object with `bytes` or `path`.
        table: the file with the cell.
        gallery: images of the data set by path.
        limits: how much is taken.

    Raises:
        RowFault: there is no such image, or it cannot be read.
    """
    if isinstance(value, dict) and isinstance(value.get("sha256"), str):
        return value
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return _described(io.BytesIO(content), hashlib.sha256(content).hexdigest(), len(content), limits)
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        message = f"It is {kind_of(value)}, not the path of an image."
        raise RowFault(ProblemCode.TYPE_MISMATCH, message, "Give a path in the data set.", field="image")
    folder = PurePosixPath(table.path).parent
    for place in (str(folder / path), path):
        if place.removeprefix("./") in gallery:
            return described(gallery[place.removeprefix("./")].local, limits)
    message = f"The image `{path[:100]}` is not in the data set."
    raise RowFault(ProblemCode.BAD_IMAGE, message, "Upload the images in one folder with the table.", field="image")


def described(path: Path, limits: Limits) -> dict[str, Any]:
    """Returns what an image file is: digest, kind, width and height in pixels, size in bytes.

    Raises:
        RowFault: it is no image that is read, it is damaged, or too large.
    """
    size = check_regular(path).st_size
    if size > _LARGEST:
        message = f"The image has {size} bytes; at most {_LARGEST} are taken."
        raise RowFault(ProblemCode.ROW_TOO_LARGE, message, "Make it smaller.", field="image")
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        opened.seek(0)
        return _described(opened, digest, size, limits)


def _described(opened: IO[bytes], digest: str, size: int, limits: Limits) -> dict[str, Any]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "Reading images", "formats") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(opened, formats=tuple(KINDS)) as image:
                width, height, kind = image.width, image.height, image.format or ""
                if width * height <= limits.pixels:
                    image.verify()
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they like over damaged bytes
        message = f"It is no image that can be read ({type(error).__name__})."
        cure = "Give PNG, JPEG, WebP, GIF or BMP."
        raise RowFault(ProblemCode.BAD_IMAGE, message, cure, field="image") from None
    if width * height > limits.pixels:
        message = f"The image has {width} x {height} pixels; at most {limits.pixels} are taken."
        raise RowFault(ProblemCode.BAD_IMAGE, message, "Make it smaller.", field="image")
    return {"sha256": digest, "media_type": KINDS[kind], "width": width, "height": height, "size_bytes": size}
