"""Fifty callers at once: one wins a compare-and-set, numbers are dense, a repeated request is one change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

import grpc

from tests.contract.test_registry_promotions import IMPORTED, promoting
from tests.support.event_loop import on_loop
from tests.support.gated_registry import ALIAS, gated_registry, version
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, running_registry
from tests.support.tiny_model import make_tiny_model
from tuneforge.errors import Reason, from_rpc_error
from tuneforge.v1 import aliases_pb2, datasets_pb2, models_pb2, promotions_pb2

pytestmark = EACH_DATABASE

CALLERS = 50
Answer = TypeVar("Answer")


def row(number: int) -> bytes:
    """Returns a file of one row."""
    return json.dumps({"prompt": f"Say {number}.", "completion": f"{number}."}).encode() + b"\n"


async def outcomes(calls: Sequence[Awaitable[Answer]]) -> tuple[list[Answer], list[str]]:
    """Makes all calls at once; returns the answers and the reasons of the refusals."""

    async def one(call: Awaitable[Answer]) -> Answer:
        return await call

    done = await asyncio.gather(*map(one, calls), return_exceptions=True)
    answers, reasons = [], []
    for each in done:
        if isinstance(each, grpc.RpcError):
            reasons.append(from_rpc_error(each).reason)
        elif isinstance(each, BaseException):
            raise each
        else:
            answers.append(each)
    return answers, reasons


@on_loop
async def test_one_of_fifty_creates(tmp_path: Path) -> None:
    """Of fifty who create the same model one does, of fifty repeats of one request all get the same answer."""
    async with running_registry(tmp_path) as registry:
        request = models_pb2.CreateModelRequest(parent=PROJECT, model_id="tiny")
        made, refused = await outcomes([registry.stub.CreateModel(request) for _ in range(CALLERS)])
        assert len(made) == 1
        assert refused == [Reason.ALREADY_EXISTS] * (CALLERS - 1)
        repeated = models_pb2.CreateModelRequest(parent=PROJECT, model_id="small", request_id="one")
        made, refused = await outcomes([registry.stub.CreateModel(repeated) for _ in range(CALLERS)])
        assert refused == []
        assert made == [made[0]] * CALLERS


@on_loop
async def test_fifty_versions_are_numbered_densely(tmp_path: Path) -> None:
    """Fifty different contents become versions 1 to 50, fifty times the same content becomes one."""
    async with running_registry(tmp_path) as registry:
        dataset = await registry.dataset()
        manifests = [await registry.put_files({"train.jsonl": row(number)}) for number in range(CALLERS)]

        def create(number: int) -> Awaitable[datasets_pb2.DatasetVersion]:
            request = datasets_pb2.CreateDatasetVersionRequest(parent=dataset, manifest=manifests[number])
            return registry.stub.CreateDatasetVersion(request)

        made, refused = await outcomes([create(number) for number in range(CALLERS)])
        assert refused == []
        numbers = sorted(int(version.name.rpartition("/")[2]) for version in made)
        assert numbers == list(range(1, CALLERS + 1))
        again, _ = await outcomes([create(0) for _ in range(CALLERS)])
        assert len({version.name for version in again}) == 1


@on_loop
async def test_one_of_fifty_moves_an_alias(tmp_path: Path) -> None:
    """Of fifty who move an alias as they have read it one does; the log has each move that was acknowledged, once."""
    async with running_registry(tmp_path / "data") as registry:
        model = await registry.model()
        for seed in (0, 1):
            await registry.imported(model, make_tiny_model(tmp_path / f"m{seed}", seed=seed))
        alias = f"{model}/aliases/production"
        head = await registry.stub.SetAlias(
            aliases_pb2.SetAliasRequest(name=alias, version=f"{model}/versions/1", etag="absent")
        )
        for turn in range(2):
            target = f"{model}/versions/{2 - turn}"
            request = aliases_pb2.SetAliasRequest(name=alias, version=target, etag=head.etag)
            moved, refused = await outcomes([registry.stub.SetAlias(request) for _ in range(CALLERS)])
            assert len(moved) == 1
            assert refused == [Reason.ETAG_MISMATCH] * (CALLERS - 1)
            head = moved[0]
        listed = await registry.stub.ListAliasChanges(aliases_pb2.ListAliasChangesRequest(parent=alias))
        assert [change.sequence for change in listed.changes] == [3, 2, 1]


@on_loop
async def test_fifty_unconditional_moves_are_one_chain(tmp_path: Path) -> None:
    """Each move begins where the one before ended, none is lost or doubled, and the last one tells where it is."""
    async with gated_registry(tmp_path, *({} for _ in range(4))) as gated:
        moves = [gated.move(number % 5 + 1, actor=f"caller-{number}") for number in range(CALLERS)]
        moved, refused = await outcomes(moves)
        assert refused == []
        assert {alias.version for alias in moved} == {version(number) for number in range(1, 6)}
        request = aliases_pb2.ListAliasChangesRequest(parent=ALIAS, page_size=1000)
        changes = list(reversed((await gated.stub.ListAliasChanges(request)).changes))
        assert [change.sequence for change in changes] == list(range(1, len(changes) + 1))
        assert [change.from_version for change in changes] == ["", *(change.to_version for change in changes[:-1])]
        assert all(change.from_version != change.to_version for change in changes)
        assert len({change.actor for change in changes}) == len(changes)
        head = await gated.stub.GetAlias(aliases_pb2.GetAliasRequest(name=ALIAS))
        assert head.version == changes[-1].to_version


@on_loop
async def test_fifty_promotions_of_one_version_make_one_copy(tmp_path: Path) -> None:
    """To one path all fifty get the same promotion; to two paths one wins and the callers of the other are told."""
    async with promoting(tmp_path) as stage:
        made, refused = await outcomes([stage.promote() for _ in range(CALLERS)])
        assert refused == []
        assert len({promotion.destination for promotion in made}) == 1
        done = await stage.ended(stage.get())
        assert done.state == promotions_pb2.PROMOTION_STATE_COMPLETED
        begun = [change for change in done.changes if change.state == promotions_pb2.PROMOTION_STATE_IN_PROGRESS]
        assert len(begun) == 1

        paths = ("support/router/mail", "support/router/chat")
        made, refused = await outcomes([stage.promote(IMPORTED, paths[n % 2]) for n in range(CALLERS)])
        assert len(made) == len(refused) == CALLERS // 2
        assert set(refused) == {Reason.WRONG_STATE}
        await stage.ended(stage.get(IMPORTED))
        copies = [path for path in paths if (stage.deploy / path).exists()]
        assert copies == [made[0].path]


@on_loop
async def test_promotions_and_their_ends_at_once_leave_one_state(tmp_path: Path) -> None:
    """Half of fifty promote, half unpromote: each is done or refused, and the copy is there exactly when it is said."""
    async with promoting(tmp_path) as stage:
        await stage.ended(stage.promote())
        calls = [stage.unpromote() if number % 2 else stage.promote() for number in range(CALLERS)]
        made, refused = await outcomes(calls)
        assert len(made) + len(refused) == CALLERS
        assert set(refused) <= {Reason.WRONG_STATE}
        done = await stage.ended(stage.get())
        assert done.state in {promotions_pb2.PROMOTION_STATE_COMPLETED, promotions_pb2.PROMOTION_STATE_NOT_PROMOTED}
        assert stage.place.exists() == (done.state == promotions_pb2.PROMOTION_STATE_COMPLETED)
