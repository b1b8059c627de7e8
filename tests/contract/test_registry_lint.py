"""Lints and previews of data set versions, over a real socket: the same answers as those of the SDK on local files."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from click.testing import CliRunner, Result

from services.registry.lint import process
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, folder_files, refused, running_registry
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tests.unit.lint import corpus
from tuneforge import linting
from tuneforge._lint_wire import item_of, preview_of
from tuneforge.cli.app import cli
from tuneforge.client import Client
from tuneforge.data.lint import Finding, LengthPolicy, LintOptions, Progress, RowPreview, Summary
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.specs.spec import OverlongPolicy
from tuneforge.v1 import aliases_pb2, datasets_pb2, lint_pb2, models_pb2, types_pb2

pytestmark = EACH_DATABASE

# What the registry takes as a version has no row that cannot be read.
READABLE = tuple(row for row in corpus.TRAIN if row[0] not in {
    "cut-json", "two-values", "not-an-object", "empty-target", "missing-target", "unknown-role", "same-role-twice",
    "result-without-call", "missing-column",
})  # fmt: skip


async def _version(registry: RunningRegistry, dataset: str, path: Path, *, project: str = PROJECT) -> str:
    name = await registry.dataset(dataset, project=project)
    manifest = await registry.put_files({path.name: await asyncio.to_thread(path.read_bytes)}, project=project)
    request = datasets_pb2.CreateDatasetVersionRequest(parent=name, manifest=manifest)
    return (await registry.stub.CreateDatasetVersion(request)).name


async def _items(call: Any) -> list[Finding | Progress | Summary]:
    return [item for item in [item_of(response) async for response in call] if item is not None]


@on_loop
async def test_the_registry_finds_what_the_sdk_finds(tmp_path: Path) -> None:
    """The same files have the same findings and the same summary at the registry and on disk."""
    train = corpus.write(tmp_path / "train.jsonl", READABLE)
    validation = corpus.write(tmp_path / "validation.jsonl", corpus.VALIDATION)
    model = make_tiny_model(tmp_path / "model")
    options = LintOptions(length=LengthPolicy(max_tokens=60, overlong=OverlongPolicy.TRUNCATE))
    local = linting.lint_files(train, validation=validation, model=model, options=options)
    expected = list(local)
    assert {each.code for each in expected} >= {"CONTROL_TOKEN", "OVERLONG_ROW", "LEAKED_ROW", "SECRET"}
    async with running_registry(tmp_path / "data") as registry:
        rows, held_out = await _version(registry, "rows", train), await _version(registry, "held-out", validation)
        imported = await registry.imported(await registry.model(), model)

        def ask() -> tuple[list[Finding], Summary, list[Progress]]:
            told: list[Progress] = []
            with Client(registry=registry.address) as client:
                found = client.datasets.lint(
                    rows, validation=held_out, model=imported.name, options=options, on_progress=told.append
                )
                return list(found), found.summary, told

        findings, summary, told = await asyncio.to_thread(ask)
    assert findings == expected
    assert summary == local.summary
    assert told[0].rows == 0
    assert told[-1].rows == len(READABLE) + len(corpus.VALIDATION)


@on_loop
async def test_the_split_of_a_version_divides_its_rows(tmp_path: Path) -> None:
    """Rows that a run would measure with are held against those that it would learn from."""
    rows = tuple((f"keeper-{n}", corpus.chat(f"Tell of keeper {n}.", corpus.LONG), ()) for n in range(30))
    path = corpus.write(tmp_path / "rows.jsonl", rows)
    local = linting.lint_files(path, split=linting.Split(validation_ratio=0.3, seed=4))
    async with running_registry(tmp_path / "data") as registry:
        manifest = await registry.put_files({path.name: await asyncio.to_thread(path.read_bytes)})
        split = datasets_pb2.DatasetSplit(validation_ratio=0.3, seed=4)
        request = datasets_pb2.CreateDatasetVersionRequest(
            parent=await registry.dataset("rows"), manifest=manifest, split=split
        )
        version = await registry.stub.CreateDatasetVersion(request)
        lint = lint_pb2.LintDatasetVersionRequest(name=version.name)
        items = await _items(registry.stub.LintDatasetVersion(lint))
    assert items[-1] == local.summary
    assert local.summary.by_code["LEAKED_NEAR_DUPLICATE"] == local.summary.validation_rows > 0


@on_loop
async def test_either_answer_of_a_pair_is_drawn(tmp_path: Path) -> None:
    """At the registry as on disk: the chosen answer, or the rejected one; a row without a pair has none."""
    train = tmp_path / "pairs.jsonl"
    train.write_text('{"prompt": "Say cat:", "chosen": " cat", "rejected": " dog"}\n')
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "A cat."}\n')
    model = make_tiny_model(tmp_path / "model")
    drawn = [linting.preview_file_row(train, 1, model=model, rejected=rejected) for rejected in (False, True)]
    assert drawn[0].tokens != drawn[1].tokens
    async with running_registry(tmp_path / "data") as registry:
        rows, others = await _version(registry, "rows", train), await _version(registry, "others", texts)
        imported = await registry.imported(await registry.model(), model)

        def ask(rejected: bool) -> RowPreview:
            with Client(registry=registry.address) as client:
                return client.datasets.preview(rows, 1, model=imported.name, rejected=rejected)

        assert [await asyncio.to_thread(ask, rejected) for rejected in (False, True)] == drawn
        request = lint_pb2.PreviewDatasetRowRequest(name=others, model=imported.name, number=1, rejected=True)
        await refused(registry.stub.PreviewDatasetRow(request), Reason.INVALID_DATA)


@on_loop
async def test_a_preview_is_the_same_at_the_registry(tmp_path: Path) -> None:
    """A row is drawn alike by number, by id, and on disk; the labels are the learned tokens."""
    train = corpus.write(tmp_path / "train.jsonl", READABLE)
    model = make_tiny_model(tmp_path / "model")
    local = linting.preview_file_row(train, 4, model=model, length=LengthPolicy(max_tokens=50))
    async with running_registry(tmp_path / "data") as registry:
        rows = await _version(registry, "rows", train)
        imported = await registry.imported(await registry.model(), model)
        request = lint_pb2.PreviewDatasetRowRequest(name=rows, model=imported.name, number=4, max_tokens=50)
        assert preview_of(await registry.stub.PreviewDatasetRow(request)) == local
        with_id = lint_pb2.PreviewDatasetRowRequest(
            name=rows, model=imported.name, row_id=local.row_id[:10], max_tokens=50
        )
        assert preview_of(await registry.stub.PreviewDatasetRow(with_id)) == local
        with_id.row_id = "0123456789"
        await refused(registry.stub.PreviewDatasetRow(with_id), Reason.NOT_FOUND)
        place = 1 + next(n for n, row in enumerate(READABLE) if row[0] == "control-token")
        request.number = place
        error = await refused(registry.stub.PreviewDatasetRow(request), Reason.INVALID_DATA)
        assert fields_of(error) == [f"train.jsonl:{place}"]
    assert "".join(token.text for token in local.tokens).startswith("<|im_start|>user\n")


@on_loop
async def test_an_adapter_is_lent_the_tokenizer_of_its_base(tmp_path: Path) -> None:
    """Rows are drawn for an adapter as for its base, by version and by alias."""
    async with running_registry(tmp_path / "data") as registry:
        rows = await _version(registry, "rows", corpus.write(tmp_path / "train.jsonl", READABLE[:1]))
        base = await registry.imported(await registry.model("base"), make_tiny_model(tmp_path / "base"))
        adapter = models_pb2.CreateModelVersionRequest(
            parent=await registry.model("adapter"),
            manifest=await registry.put_files(folder_files(make_tiny_adapter(tmp_path / "adapter"))),
            base=types_pb2.VersionRef(version=base.name, digest=base.manifest.digest),
        )
        made = await registry.stub.CreateModelVersion(adapter)
        alias = aliases_pb2.SetAliasRequest(name=f"{adapter.parent}/aliases/new", version=made.name)
        await registry.stub.SetAlias(alias)
        drawn = [
            await registry.stub.PreviewDatasetRow(lint_pb2.PreviewDatasetRowRequest(name=rows, model=name, number=1))
            for name in (base.name, made.name, alias.name)
        ]
        assert drawn[0] == drawn[1] == drawn[2]
        assert len(drawn[0].tokens) == 46


@on_loop
async def test_other_projects_are_not_read(tmp_path: Path) -> None:
    """Neither validation rows nor a model of a project that the caller may not touch are looked at."""
    token, tokens = "x" * 40, tmp_path / "tokens.json"
    digest = hashlib.sha256(token.encode()).hexdigest()
    entry = {"token_sha256": digest, "principal": "ann", "roles": ["editor"], "projects": ["default"]}
    tokens.write_text(json.dumps([entry]))
    async with running_registry(tmp_path / "data", tokens_file=tokens) as registry:
        metadata = (("authorization", f"Bearer {token}"),)
        own, other = f"{PROJECT}/datasets/rows/versions/1", "projects/secret/datasets/rows/versions/1"
        for request in (
            lint_pb2.LintDatasetVersionRequest(name=other),
            lint_pb2.LintDatasetVersionRequest(name=own, validation=other),
            lint_pb2.LintDatasetVersionRequest(name=own, model="projects/secret/models/m/versions/1"),
        ):
            call = registry.stub.LintDatasetVersion(request, metadata=metadata)
            await refused(_items(call), Reason.PERMISSION_DENIED)
        draw = lint_pb2.PreviewDatasetRowRequest(name=own, model="projects/secret/models/m/versions/1", number=1)
        await refused(registry.stub.PreviewDatasetRow(draw, metadata=metadata), Reason.PERMISSION_DENIED)


@on_loop
async def test_the_command_line_asks_the_registry(tmp_path: Path) -> None:
    """What is no file is a version; the exit code is that of its findings."""
    async with running_registry(tmp_path / "data") as registry:
        await _version(registry, "rows", corpus.write(tmp_path / "train.jsonl", READABLE))
        await registry.imported(await registry.model("tiny"), make_tiny_model(tmp_path / "model"))

        def run(*arguments: str) -> Result:
            return CliRunner().invoke(cli, ["--registry", registry.address, "datasets", *arguments])

        result = await asyncio.to_thread(run, "lint", "rows/1", "--model", "tiny", "--check", "tokens")
        assert result.exit_code == 1
        assert "error CONTROL_TOKEN: " in result.output
        result = await asyncio.to_thread(run, "lint", "rows", "--check", "duplicates", "--fail-on", "error")
        assert (result.exit_code, "DUPLICATE_ROW" in result.output) == (0, True)
        drawn = await asyncio.to_thread(run, "preview", "rows", "--row", "1", "--model", "tiny")
        assert "[Under the mat by the door.<|im_end|>]" in drawn.output


@on_loop
async def test_requests_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """All wrong fields are told at once; unknown versions are not found."""
    async with running_registry(tmp_path / "data") as registry:
        rows = await _version(registry, "rows", corpus.write(tmp_path / "train.jsonl", READABLE[:1]))
        lint = lint_pb2.LintDatasetVersionRequest(name=rows, max_tokens=-1, max_findings_per_code=-5, checks=["typo"])
        # A number without a meaning, as a caller of a later release may send.
        lint.overlong = 99  # type: ignore[assignment]
        error = await refused(_items(registry.stub.LintDatasetVersion(lint)), Reason.INVALID_FIELD)
        assert fields_of(error) == ["max_tokens", "overlong", "max_findings_per_code", "checks"]
        missing = lint_pb2.LintDatasetVersionRequest(name=f"{PROJECT}/datasets/rows/versions/9")
        await refused(_items(registry.stub.LintDatasetVersion(missing)), Reason.NOT_FOUND)
        draw = lint_pb2.PreviewDatasetRowRequest(name=rows, model=f"{PROJECT}/models/none/versions/1", max_tokens=-1)
        error = await refused(registry.stub.PreviewDatasetRow(draw), Reason.INVALID_FIELD)
        assert fields_of(error) == ["max_tokens", "row"]
        draw.max_tokens, draw.number = 0, 1
        await refused(registry.stub.PreviewDatasetRow(draw), Reason.NOT_FOUND)


@on_loop
async def test_the_worker_ends_with_its_caller(tmp_path: Path) -> None:
    """Whoever leaves in the middle of a lint leaves no process behind, and the slot is free again."""
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f'{{"prompt": "a{n}", "completion": "b\\u200b"}}\n' for n in range(30_000)))
    async with running_registry(tmp_path / "data") as registry:
        rows = await _version(registry, "rows", path)
        opened = psutil.Process().num_fds()
        for _ in range(6):  # more than may run at once
            call = registry.stub.LintDatasetVersion(lint_pb2.LintDatasetVersionRequest(name=rows))
            assert (await call.read()) is not grpc.aio.EOF
            call.cancel()
            await asyncio.to_thread(_until_no_worker)
        few = await _version(registry, "few", corpus.write(tmp_path / "few.jsonl", READABLE[:1]))
        assert await _items(registry.stub.LintDatasetVersion(lint_pb2.LintDatasetVersionRequest(name=few)))
        assert psutil.Process().num_fds() <= opened + 2


def _until_no_worker() -> None:
    """Waits for the end of the processes that this one has started, each by its own id."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "services.registry.lint.worker" in child.cmdline():
                child.wait(timeout=20)


@on_loop
async def test_no_project_takes_the_last_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four places one project gets three; the last is for another, then nobody gets any; ends give places free."""
    go_on, begun = asyncio.Event(), asyncio.Queue[None]()
    messages = process.messages

    async def held(order: process.Order) -> AsyncIterator[bytes]:
        await begun.put(None)
        await go_on.wait()
        async for data in messages(order):
            yield data

    monkeypatch.setattr("services.registry.lint.calls.messages", held)
    async with running_registry(tmp_path / "data") as registry:
        path = corpus.write(tmp_path / "train.jsonl", READABLE[:1])
        own = lint_pb2.LintDatasetVersionRequest(name=await _version(registry, "rows", path))
        theirs = lint_pb2.LintDatasetVersionRequest(
            name=await _version(registry, "rows", path, project="projects/other")
        )

        async def begin(
            request: lint_pb2.LintDatasetVersionRequest,
        ) -> asyncio.Task[list[Finding | Progress | Summary]]:
            running = asyncio.ensure_future(_items(registry.stub.LintDatasetVersion(request)))
            await begun.get()
            return running

        running = [await begin(own) for _ in range(3)]
        error = await refused(_items(registry.stub.LintDatasetVersion(own)), Reason.TOO_MANY_CALLS)
        assert error.retry_after_s
        assert error.metadata["project"] == "default"
        running.append(await begin(theirs))
        for request in (own, theirs):
            await refused(_items(registry.stub.LintDatasetVersion(request)), Reason.TOO_MANY_CALLS)
        go_on.set()
        assert all(await asyncio.gather(*running))
        assert await _items(registry.stub.LintDatasetVersion(own))


@pytest.mark.parametrize(
    ("limit", "count"), [({"cpu_s": 1}, 20_000), ({"memory_bytes": 8 * 2**20}, 100)], ids=["time", "memory"]
)
@on_loop
async def test_a_worker_that_takes_too_much_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], count: int
) -> None:
    """Rows that need more than the registry gives end in an error that says so, and the registry goes on."""
    row = '{{"messages": [{{"role": "user", "content": "{0} {1}"}}, {{"role": "assistant", "content": "{1}"}}]}}\n'
    path = tmp_path / "train.jsonl"
    path.write_text("".join(row.format(n, "word " * 60) for n in range(count)))
    order = process.Order
    monkeypatch.setattr("services.registry.lint.calls.Order", lambda **fields: order(**fields | limit))
    async with running_registry(tmp_path / "data") as registry:
        rows = await _version(registry, "rows", path)
        request = lint_pb2.LintDatasetVersionRequest(name=rows)
        await refused(_items(registry.stub.LintDatasetVersion(request)), Reason.WORK_LIMIT)
        assert (await registry.stub.GetDataset(datasets_pb2.GetDatasetRequest(name=f"{PROJECT}/datasets/rows"))).name


def test_local_files_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    """Missing files, unknown checks and folders that are no model's are refused with a typed error."""
    with pytest.raises(InvalidArgument, match="not there"):
        linting.lint_files(tmp_path / "none.jsonl")
    path = corpus.write(tmp_path / "train.jsonl", READABLE[:1])
    with pytest.raises(InvalidArgument, match="typo"):
        linting.lint_files(path, options=LintOptions(only=("typo",)))
    with pytest.raises(InvalidArgument, match=r"tokenizer\.json"):
        linting.lint_files(path, model=tmp_path)
