"""Aliases and the log of their moves, over a real socket."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, refused, running_registry
from tests.support.tiny_model import make_tiny_model
from tuneforge.errors import Reason
from tuneforge.v1 import aliases_pb2 as pb
from tuneforge.v1 import models_pb2

pytestmark = EACH_DATABASE

MODEL = f"{PROJECT}/models/tiny"
ALIAS = f"{MODEL}/aliases/production"


@asynccontextmanager
async def registry_with_versions(folder: Path, count: int = 2) -> AsyncIterator[RunningRegistry]:
    """Serves a registry that has a model with some versions."""
    async with running_registry(folder / "data") as registry:
        await registry.model()
        for seed in range(count):
            await registry.imported(MODEL, make_tiny_model(folder / str(seed), seed=seed))
        yield registry


def to(
    version: int, *, etag: str = "", reason: str = "", request_id: str = "", name: str = ALIAS
) -> pb.SetAliasRequest:
    """Returns the request that moves an alias to a version."""
    return pb.SetAliasRequest(
        name=name, version=f"{MODEL}/versions/{version}", etag=etag, reason=reason, request_id=request_id
    )


@on_loop
async def test_an_alias_names_a_version(tmp_path: Path) -> None:
    """A new alias is found by Get and List, and leads GetModelVersion to its version."""
    async with registry_with_versions(tmp_path) as registry:
        stub = registry.stub
        alias = await stub.SetAlias(to(2, etag="absent", reason="first release"))
        assert (alias.name, alias.version) == (ALIAS, f"{MODEL}/versions/2")
        assert alias.etag
        assert await stub.GetAlias(pb.GetAliasRequest(name=ALIAS)) == alias
        listed = await stub.ListAliases(pb.ListAliasesRequest(parent=MODEL))
        assert list(listed.aliases) == [alias]
        version = await stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=ALIAS))
        assert version.name == alias.version


@on_loop
async def test_moves_are_compare_and_set(tmp_path: Path) -> None:
    """The etag of the last answer moves on; a stale one, and `absent` for what exists, are ETAG_MISMATCH."""
    async with registry_with_versions(tmp_path) as registry:
        stub = registry.stub
        not_there = await refused(stub.SetAlias(to(1, etag="0" * 16)), Reason.ETAG_MISMATCH)
        assert not_there.metadata["etag"] == "absent"
        first = await stub.SetAlias(to(1, etag="absent"))
        await refused(stub.SetAlias(to(2, etag="absent")), Reason.ETAG_MISMATCH)
        second = await stub.SetAlias(to(2, etag=first.etag))
        assert second.etag != first.etag
        stale = await refused(stub.SetAlias(to(1, etag=first.etag)), Reason.ETAG_MISMATCH)
        assert stale.metadata["etag"] == second.etag
        assert (await stub.SetAlias(to(1))).version == f"{MODEL}/versions/1"


@on_loop
async def test_of_two_who_move_at_once_one_wins(tmp_path: Path) -> None:
    """With the same etag one of many concurrent moves succeeds, and the log has no other."""
    async with registry_with_versions(tmp_path) as registry:
        stub = registry.stub
        first = await stub.SetAlias(to(1))
        outcomes = await asyncio.gather(
            *(stub.SetAlias(to(2, etag=first.etag)) for _ in range(8)), return_exceptions=True
        )
        refusals = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
        assert [each.code() for each in refusals] == [grpc.StatusCode.ABORTED] * 7
        log = await stub.ListAliasChanges(pb.ListAliasChangesRequest(parent=ALIAS))
        assert [each.sequence for each in log.changes] == [2, 1]


@on_loop
async def test_the_log_tells_who_moved_it_and_why(tmp_path: Path) -> None:
    """Each move has its actor and reason, newest first, and survives a restart; pages walk it."""
    async with registry_with_versions(tmp_path) as registry:
        for number, version in enumerate([1, 2, 1], start=1):
            await registry.stub.SetAlias(to(version, reason=f"because {number}"))
        await registry.stub.SetAlias(to(1, reason="no move: it is there already"))
    async with running_registry(tmp_path / "data") as registry:
        stub = registry.stub
        first = await stub.ListAliasChanges(pb.ListAliasChangesRequest(parent=ALIAS, page_size=2))
        request = pb.ListAliasChangesRequest(parent=ALIAS, page_size=2, page_token=first.next_page_token)
        second = await stub.ListAliasChanges(request)
        changes = [*first.changes, *second.changes]
        assert [(each.sequence, each.reason) for each in changes] == [(n, f"because {n}") for n in (3, 2, 1)]
        assert {each.actor for each in changes} == {"local"}
        ends = [(each.from_version, each.to_version) for each in reversed(changes)]
        one, two = f"{MODEL}/versions/1", f"{MODEL}/versions/2"
        assert ends == [("", one), (one, two), (two, one)]
        assert second.next_page_token == ""


@on_loop
async def test_the_actor_is_the_end_user(tmp_path: Path) -> None:
    """A service that calls on behalf of a user is not the one who moved it; a user cannot claim to be another."""
    tokens = [
        {"token_sha256": hashlib.sha256(token).hexdigest(), "principal": name, "roles": roles, "projects": ["*"]}
        | {"is_service": name == "scheduler"}
        for token, name, roles in ((b"s", "scheduler", ["service"]), (b"a", "ada", ["editor"]))
    ]
    async with registry_with_versions(tmp_path, count=2):
        pass
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    async with running_registry(tmp_path / "data", tokens_file=tmp_path / "tokens.json") as registry:
        stub = registry.stub
        for_bob = [("authorization", "Bearer s"), ("x-tuneforge-on-behalf-of", "bob")]
        await stub.SetAlias(to(1), metadata=for_bob)
        await stub.SetAlias(to(2), metadata=[("authorization", "Bearer a")])
        log = await stub.ListAliasChanges(pb.ListAliasChangesRequest(parent=ALIAS), metadata=for_bob)
        assert [each.actor for each in log.changes] == ["ada", "bob"]
        # Two users of one backend may have chosen the same request id: it is not the same request.
        for_eve = [for_bob[0], ("x-tuneforge-on-behalf-of", "eve")]
        await stub.SetAlias(to(1, request_id="one"), metadata=for_bob)
        await stub.SetAlias(to(2, request_id="one"), metadata=for_eve)
        assert (await stub.GetAlias(pb.GetAliasRequest(name=ALIAS), metadata=for_bob)).version.endswith("/2")


@on_loop
async def test_a_repeated_move_is_one_move(tmp_path: Path) -> None:
    """The same request id gives the first answer, even when the alias has moved on since; another body is refused."""
    async with registry_with_versions(tmp_path) as registry:
        stub = registry.stub
        first = await stub.SetAlias(to(1, etag="absent", request_id="one"))
        await stub.SetAlias(to(2))
        assert await stub.SetAlias(to(1, etag="absent", request_id="one")) == first
        await refused(stub.SetAlias(to(2, etag="absent", request_id="one")), Reason.REQUEST_ID_REUSED)
        assert (await stub.GetAlias(pb.GetAliasRequest(name=ALIAS))).version == f"{MODEL}/versions/2"


@on_loop
async def test_all_wrong_fields_of_a_move_are_told_at_once(tmp_path: Path) -> None:
    """A malformed alias id, a version of another model and a reason that is too long come in one answer."""
    async with registry_with_versions(tmp_path, count=1) as registry:
        stub = registry.stub
        request = to(1, name=f"{MODEL}/aliases/Prod!", reason="x" * 1025)
        request.version = f"{PROJECT}/models/other/versions/1"
        error = await refused(stub.SetAlias(request), Reason.INVALID_FIELD)
        assert fields_of(error) == ["name", "version", "reason"]
        latest = pb.SetAliasRequest(name=ALIAS, version=f"{MODEL}/versions/latest")
        assert fields_of(await refused(stub.SetAlias(latest), Reason.INVALID_FIELD)) == ["version"]
        await refused(stub.SetAlias(to(1, name=MODEL)), Reason.INVALID_NAME)


@on_loop
async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    """Aliases, their log, models and versions that do not exist are NOT_FOUND."""
    async with registry_with_versions(tmp_path, count=1) as registry:
        stub = registry.stub
        await refused(stub.GetAlias(pb.GetAliasRequest(name=ALIAS)), Reason.NOT_FOUND)
        await refused(stub.ListAliasChanges(pb.ListAliasChangesRequest(parent=ALIAS)), Reason.NOT_FOUND)
        await refused(stub.ListAliases(pb.ListAliasesRequest(parent=f"{PROJECT}/models/none")), Reason.NOT_FOUND)
        await refused(stub.SetAlias(to(9)), Reason.NOT_FOUND)


@on_loop
async def test_a_projects_aliases_are_listed_at_once(tmp_path: Path) -> None:
    """By model and id, over pages that end within a model or between two; no deleted ones, no other projects'."""
    async with registry_with_versions(tmp_path, count=1) as registry:
        stub = registry.stub
        other = await registry.imported(await registry.model("another"), tmp_path / "0")
        for alias in ("b", "a", "gone"):
            await stub.SetAlias(to(1, name=f"{MODEL}/aliases/{alias}"))
        await stub.DeleteAlias(pb.DeleteAliasRequest(name=f"{MODEL}/aliases/gone"))
        name = f"{other.name.partition('/versions/')[0]}/aliases/z"
        await stub.SetAlias(pb.SetAliasRequest(name=name, version=other.name))
        request, seen = pb.ListAliasesRequest(parent=PROJECT, page_size=1), []
        while True:
            page = await stub.ListAliases(request)
            seen += [each.name for each in page.aliases]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert seen == [name, f"{MODEL}/aliases/a", f"{MODEL}/aliases/b"]
        assert not (await stub.ListAliases(pb.ListAliasesRequest(parent="projects/others"))).aliases
        foreign = pb.ListAliasesRequest(parent=MODEL, page_token=request.page_token)
        await refused(stub.ListAliases(foreign), Reason.INVALID_PAGE_TOKEN)
        await refused(stub.ListAliases(pb.ListAliasesRequest(parent="models/tiny")), Reason.INVALID_NAME)


@on_loop
async def test_aliases_are_walked_by_pages(tmp_path: Path) -> None:
    """Pages give each alias once, by id; negative sizes and foreign tokens are refused."""
    async with registry_with_versions(tmp_path, count=1) as registry:
        stub = registry.stub
        for alias in ("c", "a", "b"):
            await stub.SetAlias(to(1, name=f"{MODEL}/aliases/{alias}"))
        first = await stub.ListAliases(pb.ListAliasesRequest(parent=MODEL, page_size=2))
        request = pb.ListAliasesRequest(parent=MODEL, page_size=2, page_token=first.next_page_token)
        second = await stub.ListAliases(request)
        names = [each.name.rpartition("/")[2] for page in (first, second) for each in page.aliases]
        assert names == ["a", "b", "c"]
        await refused(stub.ListAliases(pb.ListAliasesRequest(parent=MODEL, page_size=-1)), Reason.INVALID_FIELD)
        bad = pb.ListAliasesRequest(parent=MODEL, page_token="x")
        await refused(stub.ListAliases(bad), Reason.INVALID_PAGE_TOKEN)
        log = f"{MODEL}/aliases/a"
        negative = pb.ListAliasChangesRequest(parent=log, page_size=-1)
        await refused(stub.ListAliasChanges(negative), Reason.INVALID_FIELD)
        foreign = pb.ListAliasChangesRequest(parent=log, page_token=first.next_page_token)
        await refused(stub.ListAliasChanges(foreign), Reason.INVALID_PAGE_TOKEN)
