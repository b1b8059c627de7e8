"""The methods that look at the rows of a data set: what is wrong with them, and what a model makes of one."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from types import ModuleType
from typing import Final, overload

from sqlalchemy import Connection

from services.grpckit.context import require_project
from services.grpckit.errors import FieldViolation, Reason, invalid_fields
from services.registry.calls import Calls, Context
from services.registry.datasets.resources import DatasetContent
from services.registry.datasets.store import get_dataset_version
from services.registry.folder import Folder
from services.registry.library import Library
from services.registry.lint.process import Order, messages
from services.registry.models.references import resolve
from services.registry.slots import Slots
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.names import DatasetVersionName, ModelVersionName, parse_model_reference
from tuneforge.v1 import lint_pb2, models_pb2

AT_ONCE: Final = 4
"""Lints and previews that run at once, each on a core of its own."""
_TOKENIZER_FILES: Final = frozenset(
    {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "generation_config.json",
        "config.json",
    }
)
_DEEPEST: Final = 8  # adapters on adapters, down to the base whose tokenizer they use


@dataclass(frozen=True, slots=True)
class _Tokenizer:
    """The files that a model's texts are written by, and the project that has them."""

    files: Manifest
    project: str


class LintCalls(Calls):
    """The methods that look at rows."""

    def __init__(self, library: Library) -> None:
        super().__init__(library)
        self._slots = Slots("lints and previews")

    async def LintDatasetVersion(
        self, request: lint_pb2.LintDatasetVersionRequest, context: Context
    ) -> AsyncIterator[lint_pb2.LintDatasetVersionResponse]:
        """Sends what is wrong with the rows of a version."""
        name = DatasetVersionName.parse(request.name, allow_latest=True)
        held_out = DatasetVersionName.parse(request.validation, allow_latest=True) if request.validation else None
        model = parse_model_reference(request.model) if request.model else None
        _requests().check_lint(request)
        for other in (held_out, model):
            if other is not None:
                require_project(other.project)

        def read(connection: Connection) -> tuple[DatasetContent, Manifest | None, _Tokenizer | None]:
            rows = get_dataset_version(connection, name).content
            others = get_dataset_version(connection, held_out).content.manifest if held_out else None
            return rows, others, _tokenizer_of(connection, request.model) if model else None

        rows, others, tokenizer = await self._database.read(read)
        with self._slots.one_for(name.project, most=AT_ONCE):
            async with AsyncExitStack() as stack:
                order = Order(
                    kind="lint",
                    request=request.SerializeToString(),
                    files=await stack.enter_async_context(self._library.fetched(rows.manifest)),
                    split=rows.split,
                    validation=await self._fetched(stack, others),
                    model=await self._fetched(stack, _allowed(tokenizer)),
                )
                answers = await stack.enter_async_context(aclosing(messages(order)))
                async for data in answers:
                    yield lint_pb2.LintDatasetVersionResponse.FromString(data)

    async def PreviewDatasetRow(
        self, request: lint_pb2.PreviewDatasetRowRequest, context: Context
    ) -> lint_pb2.RowPreview:
        """Returns one row token by token."""
        name = DatasetVersionName.parse(request.name, allow_latest=True)
        model = parse_model_reference(request.model)
        _requests().check_preview(request)
        require_project(model.project)

        def read(connection: Connection) -> tuple[Manifest, _Tokenizer]:
            rows = get_dataset_version(connection, name).content.manifest
            return rows, _tokenizer_of(connection, request.model)

        rows, found = await self._database.read(read)
        tokenizer = _allowed(found)
        with self._slots.one_for(name.project, most=AT_ONCE):
            async with self._library.fetched(rows) as files, self._library.fetched(tokenizer) as folder:
                order = Order(kind="preview", request=request.SerializeToString(), files=files, model=folder)
                async with aclosing(messages(order)) as answers:
                    async for data in answers:
                        return lint_pb2.RowPreview.FromString(data)
        raise RuntimeError("the worker that draws rows ended without an answer")

    async def _fetched(self, stack: AsyncExitStack, manifest: Manifest | None) -> Folder | None:
        if manifest is None:
            return None
        return await stack.enter_async_context(self._library.fetched(manifest))


def _requests() -> ModuleType:
    """Returns what checks requests: it imports the whole linter, which a start need not wait for."""
    return importlib.import_module("services.registry.lint.requests")


@overload
def _allowed(tokenizer: _Tokenizer) -> Manifest: ...
@overload
def _allowed(tokenizer: _Tokenizer | None) -> Manifest | None: ...
def _allowed(tokenizer: _Tokenizer | None) -> Manifest | None:
    """Returns a tokenizer's files; refuses those of a base in a project that the caller may not touch."""
    if tokenizer is None:
        return None
    require_project(tokenizer.project)
    return tokenizer.files


def _tokenizer_of(connection: Connection, name: str) -> _Tokenizer:
    """Returns the files that a model's texts are written by: its own, or those of the base below an adapter.

    Raises:
        ServiceError: `NOT_FOUND`; `INVALID_MODEL` when neither has a tokenizer.
    """
    wanted = parse_model_reference(name)
    for _ in range(_DEEPEST):
        content = resolve(connection, wanted).content
        files = [
            ManifestFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes)
            for file in models_pb2.ModelVersion.FromString(content.record).manifest.files
            if file.path in _TOKENIZER_FILES
        ]
        if any(file.path == "tokenizer.json" for file in files):
            return _Tokenizer(Manifest.of(files), wanted.project)
        if not content.origin.base_version:
            break
        wanted = ModelVersionName.parse(content.origin.base_version)
    violation = FieldViolation("model", f"{name} has no tokenizer.json; choose a model that has one")
    raise invalid_fields([violation], reason=Reason.INVALID_MODEL)
