"""The linter for users: files on disk without any service, and versions at the registry, with one kind of answer.

    with tuneforge.linting.lint_files("train.jsonl", model="models/smollm2") as findings:
        for finding in findings:
            print(finding)
    if findings.summary.fails(Severity.ERROR): ...

The rules are those of `tuneforge.data.lint`, the very same in the registry and in the trainer.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc

from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._dataset_files import files_of
from tuneforge._lint_wire import item_of, overlong_to_proto, preview_of
from tuneforge._transport import typed_error
from tuneforge.data.faults import MissingExtra, RenderingError
from tuneforge.data.lint import (
    CHECKS,
    Finding,
    LengthPolicy,
    LintOptions,
    Part,
    PreviewToken,
    Progress,
    RowFate,
    RowPreview,
    Rows,
    Severity,
    Summary,
    TextModel,
    TokenCounts,
    TokenFate,
    UnknownCheck,
    lint,
    preview,
)
from tuneforge.data.lint.checks import chosen
from tuneforge.data.lint.lookup import find_row
from tuneforge.data.lint.options import LENGTH
from tuneforge.data.rows import MalformedRow, to_text
from tuneforge.data.split import Split
from tuneforge.errors import FieldViolation, InternalError, InvalidArgument, NotFound, Reason
from tuneforge.v1 import lint_pb2 as pb

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a folder, or several of them."""

_PREVIEW_DEADLINE_S: Final = 120.0


class Findings(Iterator[Finding]):
    """Findings as they come; `summary` when they have ended. Close it, or use `with`, to stop earlier."""

    def __init__(
        self,
        items: Iterator[Finding | Progress | Summary],
        *,
        on_progress: Callable[[Progress], None] | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        self._items = items
        self._on_progress = on_progress
        self._close = close
        self._summary: Summary | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Finding:
        for item in self._items:
            if isinstance(item, Finding):
                return item
            if isinstance(item, Summary):
                self._summary = item
            elif self._on_progress is not None:
                self._on_progress(item)
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def summary(self) -> Summary:
        """What was looked at and found; findings that were not read yet are passed over."""
        for _ in self:
            pass
        if self._summary is None:
            raise InternalError(Reason.INTERNAL, "the lint was closed before its end", cure="Read all findings first.")
        return self._summary

    def sorted(self) -> list[Finding]:
        """Returns all findings that were not read yet, the worst first, then by code, file and line."""
        return sorted(self, key=lambda finding: finding.sort_key)

    def close(self) -> None:
        """Ends the lint; what was found so far stays."""
        if self._close is not None:
            self._close()


def lint_files(
    files: Files,
    *,
    validation: Files | None = None,
    split: Split | None = None,
    model: str | os.PathLike[str] | None = None,
    options: LintOptions | None = None,
    config: str = "",
    on_progress: Callable[[Progress], None] | None = None,
) -> Findings:
    """Looks at the rows of files on disk; no service is asked.

    Args:
        files: What is trained on.
        validation: What is measured with.
        split: How the run divides the rows of `files`; None: not.
        model: Folder of the model whose tokenizer and chat template are used; None skips the checks that need them.
        options: What is looked for; None for everything.
        config: Where `files` is one folder whose card names configurations: which to look at; empty: the default one,
            as in an upload.
        on_progress: Told how far it has come.

    Raises:
        InvalidArgument: A file is missing, the model's folder cannot be used, no check or configuration is called so,
            or none of several configurations is the default.
    """
    wanted = options or LintOptions()
    _check_names(wanted)
    held_out = local_files(validation) if validation is not None else {}
    rows = Rows(files=local_files(files, config=config), validation=held_out, split=split)
    text_model = load_model(model) if model is not None else None
    return Findings(lint(rows, wanted, text_model), on_progress=on_progress)


def preview_file_row(
    files: Files,
    row: int | str,
    *,
    model: str | os.PathLike[str],
    length: LengthPolicy = LENGTH,
    rejected: bool = False,
    config: str = "",
) -> RowPreview:
    """Returns one row of files on disk token by token, as the trainer sees it.

    Args:
        files: Where the row is.
        row: Its number among all rows, from 1, or the beginning of its id.
        model: Folder of the model whose tokenizer and chat template are used.
        length: How long rows may be.
        rejected: Of a row with a pair of answers, draw the rejected one, not the chosen one.
        config: As in `lint_files`.

    Raises:
        InvalidArgument: The row cannot be read or written, or the model's folder cannot be used.
        NotFound: There is no such row.
    """
    text_model = load_model(model)
    parsed = find_row(local_files(files, config=config), row)
    if parsed is None:
        raise NotFound(Reason.NOT_FOUND, f"there is no row {row!r} in the files", cure="Rows are counted from 1.")
    place = f"{parsed.file}:{parsed.line}"
    try:
        text = to_text(parsed, rejected=rejected)
        return preview(text, text_model.tokenizer, text_model.chat_format, length, parsed.file)
    except (MalformedRow, RenderingError) as error:
        fields = (FieldViolation(place, str(error)),)
        raise InvalidArgument(Reason.INVALID_DATA, f"{place}: {error}", fields=fields) from error


def lint_version(
    connections: Connections,
    project: str,
    version: str,
    *,
    validation: str | None = None,
    model: str | None = None,
    options: LintOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Findings:
    """Has the registry look at the rows of a version; see `Datasets.lint`."""
    wanted = options or LintOptions()
    request = pb.LintDatasetVersionRequest(
        name=names.dataset_version(project, version),
        validation=names.dataset_version(project, validation) if validation else "",
        model=names.model_version(project, model) if model else "",
        max_tokens=wanted.length.max_tokens,
        overlong=overlong_to_proto(wanted.length.overlong),
        checks=wanted.only,
        without_checks=wanted.without,
        max_findings_per_code=wanted.most_listed,
    )
    registry = connections.registry
    stream = registry.stub.LintDatasetVersion(request)
    return Findings(_received(stream, registry.peer), on_progress=on_progress, close=stream.cancel)


def preview_row(
    connections: Connections,
    project: str,
    version: str,
    row: int | str,
    *,
    model: str,
    length: LengthPolicy = LENGTH,
    rejected: bool = False,
) -> RowPreview:
    """Has the registry draw one row of a version; see `Datasets.preview`."""
    request = pb.PreviewDatasetRowRequest(
        name=names.dataset_version(project, version),
        model=names.model_version(project, model),
        max_tokens=length.max_tokens,
        overlong=overlong_to_proto(length.overlong),
        rejected=rejected,
    )
    if isinstance(row, int):
        request.number = row
    else:
        request.row_id = row
    registry = connections.registry
    return preview_of(registry.call(registry.stub.PreviewDatasetRow, request, timeout_s=_PREVIEW_DEADLINE_S))


def local_files(files: Files, *, config: str = "") -> Mapping[str, Path]:
    """Returns the files by their paths in a data set; a folder's files keep their paths below it.

    Of one folder they are those that an upload takes: of one configuration, where its card names some.

    Raises:
        InvalidArgument: One is missing, a folder is empty, two have the same path, or the card does not say which files
            are meant.
    """
    given = [files] if isinstance(files, str | os.PathLike) else files
    if config or (len(given) == 1 and Path(given[0]).is_dir()):
        return files_of(files, config=config)
    found: dict[str, Path] = {}
    for each in map(Path, given):
        if not each.exists():
            raise InvalidArgument(Reason.INVALID_FIELD, f"{str(each)!r} is not there", cure="Give a file or a folder.")
        below = sorted(path for path in each.rglob("*") if path.is_file()) if each.is_dir() else [each]
        if not below:
            raise InvalidArgument(Reason.INVALID_FIELD, f"the folder {str(each)!r} is empty", cure="Give files.")
        for path in below:
            name = path.relative_to(each).as_posix() if each.is_dir() else path.name
            if name in found:
                message = f"two of the files are called {name!r}"
                raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Rename one of them.")
            found[name] = path
    return found


def load_model(folder: str | os.PathLike[str]) -> TextModel:
    """Loads the tokenizer and the chat template of a model's folder.

    Raises:
        InvalidArgument: They cannot be used, or the extra `data` is not installed.
    """
    try:
        return TextModel.load(Path(folder))
    except (RenderingError, MissingExtra) as error:
        raise InvalidArgument(Reason.INVALID_MODEL, f"{os.fspath(folder)!r}: {error}") from error


def _check_names(options: LintOptions) -> None:
    try:
        chosen(options)
    except UnknownCheck as error:
        raise InvalidArgument(Reason.INVALID_FIELD, str(error)) from error


def _received(stream: Any, peer: str) -> Iterator[Finding | Progress | Summary]:
    try:
        for response in stream:
            item = item_of(response)
            if item is not None:
                yield item
    except grpc.RpcError as error:
        if not stream.cancelled():  # by `Findings.close`
            raise typed_error(error, peer) from None


__all__ = [
    "CHECKS",
    "LENGTH",
    "Finding",
    "Findings",
    "LengthPolicy",
    "LintOptions",
    "Part",
    "PreviewToken",
    "Progress",
    "RowFate",
    "RowPreview",
    "Severity",
    "Split",
    "Summary",
    "TokenCounts",
    "TokenFate",
    "lint_files",
    "lint_version",
    "preview_file_row",
    "preview_row",
]
