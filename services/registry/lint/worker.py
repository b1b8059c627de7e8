"""The process in which rows are linted or drawn: limited in memory and time, without the service's secrets.

It reads one order from its input, writes frames to its output, and ends: with exit code 0 after the last frame. A frame
is a letter, four bytes of length, and that many bytes: `M`, a message of the answer; `E`, a fault as JSON.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from services.registry.child_limits import set_limits
from services.registry.lint.framing import HEADER
from tuneforge._lint_wire import length_of, options_of, preview_to_proto, response_of
from tuneforge.data.faults import RenderingError
from tuneforge.data.lint import Rows, TextModel, lint, preview
from tuneforge.data.lint.lookup import find_row
from tuneforge.data.rows import MalformedRow, to_text
from tuneforge.data.split import Split
from tuneforge.v1 import lint_pb2

MEMORY_BYTES: Final = 4 * 1024**3
"""Address space; a million rows with all checks on use some 700 MB."""
LINT_CPU_S: Final = 1800
PREVIEW_CPU_S: Final = 60
_NICENESS: Final = 5


class Fault(Exception):
    """What the caller is told instead of an answer."""

    def __init__(self, reason: str, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.answer = {"reason": reason, "message": message, "field": field}


def run(order: Mapping[str, Any]) -> None:
    """Lints or draws what an order names.

    Args:
        order: `kind` (`lint` or `preview`), `request` (the request's message in hexadecimal digits), `files` and
            `validation` (path in the data set -> file), `split` (`ratio:seed` or empty), and `model` (a folder, or
            null).
    """
    files = _paths(order["files"])
    data = bytes.fromhex(order["request"])
    model = _load(Path(order["model"])) if order["model"] else None
    if order["kind"] == "lint":
        request = lint_pb2.LintDatasetVersionRequest.FromString(data)
        rows = Rows(files=files, validation=_paths(order["validation"]), split=_split(order["split"]))
        for item in lint(rows, options_of(request), model):
            write(b"M", response_of(item).SerializeToString())
        return
    if model is None:
        raise Fault("INVALID_FIELD", "is not set", field="model")
    _preview(lint_pb2.PreviewDatasetRowRequest.FromString(data), files, model)


def _preview(request: lint_pb2.PreviewDatasetRowRequest, files: Mapping[str, Path], model: TextModel) -> None:
    wanted: int | str = request.number if request.WhichOneof("row") == "number" else request.row_id
    parsed = find_row(files, wanted)
    if parsed is None:
        raise Fault("NOT_FOUND", f"there is no row {wanted!r} in {request.name}")
    try:
        policy = length_of(request.max_tokens, request.overlong)
        drawn = preview(
            to_text(parsed, rejected=request.rejected), model.tokenizer, model.chat_format, policy, parsed.file
        )
    except (MalformedRow, RenderingError) as error:
        raise Fault("INVALID_DATA", str(error), field=f"{parsed.file}:{parsed.line}") from error
    write(b"M", preview_to_proto(drawn).SerializeToString())


def _load(folder: Path) -> TextModel:
    try:
        return TextModel.load(folder)
    except RenderingError as error:
        raise Fault("INVALID_MODEL", str(error), field="model") from error


def _split(text: str) -> Split | None:
    ratio, _, seed = text.partition(":")
    return Split(validation_ratio=float(ratio), seed=int(seed)) if text else None


def _paths(paths: Mapping[str, str]) -> dict[str, Path]:
    return {path: Path(file) for path, file in paths.items()}


def write(kind: bytes, data: bytes) -> None:
    """Writes a frame, at once: somebody waits for it."""
    sys.stdout.buffer.write(HEADER.pack(kind, len(data)) + data)
    sys.stdout.buffer.flush()


def main() -> int:
    """Reads an order from the input and answers on the output."""
    os.nice(_NICENESS)
    order = json.loads(sys.stdin.buffer.read())
    cpu_s = LINT_CPU_S if order["kind"] == "lint" else PREVIEW_CPU_S
    set_limits(memory_bytes=order.get("memory_bytes") or MEMORY_BYTES, cpu_s=order.get("cpu_s") or cpu_s, file_bytes=0)
    try:
        run(order)
    except Fault as fault:
        write(b"E", json.dumps(fault.answer).encode())
    except MemoryError:
        write(b"E", json.dumps({"reason": "WORK_LIMIT", "message": "", "field": ""}).encode())
    except BrokenPipeError:
        return 1  # nobody reads any more
    return 0


if __name__ == "__main__":
    sys.exit(main())
