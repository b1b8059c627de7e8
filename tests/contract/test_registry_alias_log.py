"""What an alias named when, rollback, deletion and the race for an alias, over a real socket."""

import asyncio
import time
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tests.contract.test_registry_aliases import ALIAS, MODEL, registry_with_versions, to
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import RunningRegistry, fields_of, refused, running_registry
from tuneforge.errors import Reason
from tuneforge.v1 import aliases_pb2 as pb

pytestmark = EACH_DATABASE


def version(number: int) -> str:
    """Returns the name of a version."""
    return f"{MODEL}/versions/{number}"


def just_before(moment: Timestamp) -> Timestamp:
    """Returns the moment one microsecond earlier."""
    nanos = moment.ToNanoseconds() - 1000
    return Timestamp(seconds=nanos // 10**9, nanos=nanos % 10**9)


async def as_of(registry: RunningRegistry, moment: Timestamp) -> str:
    """Returns the version that the alias named at a moment."""
    return (await registry.stub.GetAlias(pb.GetAliasRequest(name=ALIAS, as_of=moment))).version


@on_loop
async def test_an_alias_is_answered_as_it_was_at_any_moment(tmp_path: Path) -> None:
    """`as_of` names the version of that moment: from a move's own time on, not before; also after a restart."""
    async with registry_with_versions(tmp_path) as registry:
        before = Timestamp()
        before.GetCurrentTime()
        moves = [await registry.stub.SetAlias(to(number)) for number in (1, 2, 1)]
        deleted = await registry.stub.DeleteAlias(pb.DeleteAliasRequest(name=ALIAS, reason="retired"))
        assert (deleted.version, deleted.etag, deleted.sequence) == ("", "absent", 4)
        error = await refused(as_of(registry, before), Reason.NOT_FOUND)
        assert "there never was one until then" in error.message
    async with running_registry(tmp_path / "data") as registry:
        for alias, number in zip(moves, (1, 2, 1), strict=True):
            assert await as_of(registry, alias.update_time) == version(number)
        assert await as_of(registry, just_before(moves[1].update_time)) == version(1)
        assert await as_of(registry, just_before(deleted.update_time)) == version(1)
        error = await refused(as_of(registry, deleted.update_time), Reason.NOT_FOUND)
        assert "move 4 had deleted it" in error.message
        future = Timestamp(seconds=int(time.time()) + 60)
        assert fields_of(await refused(as_of(registry, future), Reason.INVALID_FIELD)) == ["as_of"]


@on_loop
async def test_what_was_told_of_a_moment_never_changes(tmp_path: Path) -> None:
    """Moves made while others ask for the present moment are put behind every moment that was answered."""
    async with registry_with_versions(tmp_path) as registry:
        await registry.stub.SetAlias(to(1))
        told: list[tuple[Timestamp, str]] = []

        async def ask() -> None:
            for _ in range(20):
                moment = Timestamp()
                moment.GetCurrentTime()
                told.append((moment, await as_of(registry, moment)))

        async def move() -> None:
            for number in range(20):
                await registry.stub.SetAlias(to(2 - number % 2))

        await asyncio.gather(ask(), move(), ask())
        for moment, name in told:
            assert await as_of(registry, moment) == name


@on_loop
async def test_a_deleted_alias_is_gone_and_its_log_stays(tmp_path: Path) -> None:
    """It is NOT_FOUND and not listed; its moves are; it is made again with `absent`, and counted on."""
    async with registry_with_versions(tmp_path) as registry:
        stub = registry.stub
        first = await stub.SetAlias(to(1, etag="absent"))
        delete = pb.DeleteAliasRequest(name=ALIAS, etag="0" * 16)
        await refused(stub.DeleteAlias(delete), Reason.ETAG_MISMATCH)
        delete = pb.DeleteAliasRequest(name=ALIAS, etag=first.etag, reason="no more", request_id="d")
        deleted = await stub.DeleteAlias(delete)
        assert await stub.DeleteAlias(delete) == deleted
        await refused(stub.DeleteAlias(pb.DeleteAliasRequest(name=ALIAS)), Reason.NOT_FOUND)
        await refused(stub.GetAlias(pb.GetAliasRequest(name=ALIAS)), Reason.NOT_FOUND)
        assert not (await stub.ListAliases(pb.ListAliasesRequest(parent=MODEL))).aliases
        again = await stub.SetAlias(to(1, etag="absent"))
        assert again.etag != first.etag
        log = (await stub.ListAliasChanges(pb.ListAliasChangesRequest(parent=ALIAS))).changes
        kinds = [pb.AliasMoveKind.Name(each.kind).removeprefix("ALIAS_MOVE_KIND_") for each in log]
        assert kinds == ["SET", "DELETE", "SET"]
        assert [(each.from_version, each.to_version) for each in log] == [
            ("", version(1)),
            (version(1), ""),
            ("", version(1)),
        ]


@on_loop
async def test_a_rollback_is_a_move_of_its_own(tmp_path: Path) -> None:
    """It goes to the version before, further back each time, or to a given move; stale etags and wrong moves fail."""
    async with registry_with_versions(tmp_path, count=3) as registry:
        stub = registry.stub
        await refused(stub.RollbackAlias(pb.RollbackAliasRequest(name=ALIAS)), Reason.NOT_FOUND)
        for number in (1, 2, 3):
            await stub.SetAlias(to(number))
        back = await stub.RollbackAlias(pb.RollbackAliasRequest(name=ALIAS, reason="3 is slow", request_id="r"))
        assert back.version == version(2)
        again = pb.RollbackAliasRequest(name=ALIAS, reason="3 is slow", request_id="r")
        assert await stub.RollbackAlias(again) == back
        stale = pb.RollbackAliasRequest(name=ALIAS, etag="0" * 16)
        await refused(stub.RollbackAlias(stale), Reason.ETAG_MISMATCH)
        assert (await stub.RollbackAlias(pb.RollbackAliasRequest(name=ALIAS))).version == version(1)
        await refused(stub.RollbackAlias(pb.RollbackAliasRequest(name=ALIAS)), Reason.WRONG_STATE)
        far = pb.RollbackAliasRequest(name=ALIAS, sequence=6)
        assert fields_of(await refused(stub.RollbackAlias(far), Reason.INVALID_FIELD)) == ["sequence"]
        to_third = pb.RollbackAliasRequest(name=ALIAS, sequence=3, reason="3 is fixed")
        assert (await stub.RollbackAlias(to_third)).version == version(3)
        log = (await stub.ListAliasChanges(pb.ListAliasChangesRequest(parent=ALIAS))).changes
        assert [each.restored_sequence for each in log] == [3, 1, 2, 0, 0, 0]
        assert {each.kind for each in log[:3]} == {pb.ALIAS_MOVE_KIND_ROLLBACK}
        assert log[0].reason == "3 is fixed"


@on_loop
async def test_of_fifty_who_promote_at_once_one_wins(tmp_path: Path) -> None:
    """B88: 50 moves to ten versions with one etag: 1 OK, 49 ABORTED, and every read finds a whole alias."""
    count, versions = 50, 10
    async with registry_with_versions(tmp_path, count=1) as registry:
        stub = registry.stub
        await _publish_many(registry, versions)
        start = await stub.SetAlias(to(1))
        seen: set[str] = set()
        is_over = False

        async def read() -> None:
            while not is_over:
                seen.add((await stub.GetAlias(pb.GetAliasRequest(name=ALIAS))).version)

        reading = [asyncio.create_task(read()) for _ in range(3)]
        outcomes = await asyncio.gather(
            *(stub.SetAlias(to(2 + number % versions, etag=start.etag)) for number in range(count)),
            return_exceptions=True,
        )
        is_over = True
        await asyncio.gather(*reading)
        refusals = [each.code() for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
        assert refusals == [grpc.StatusCode.ABORTED] * (count - 1)
        [winner] = [each for each in outcomes if isinstance(each, pb.Alias)]
        assert await stub.GetAlias(pb.GetAliasRequest(name=ALIAS)) == winner
        assert seen <= {version(1), winner.version}
        log = await stub.ListAliasChanges(pb.ListAliasChangesRequest(parent=ALIAS))
        assert [(each.sequence, each.to_version) for each in log.changes] == [(2, winner.version), (1, version(1))]


async def _publish_many(registry: RunningRegistry, count: int) -> None:
    """Makes versions from the files of the first one, as that many jobs would."""
    from tuneforge.v1 import events_pb2, models_pb2

    first = await registry.stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=version(1)))
    for number in range(count):
        request = models_pb2.PublishVersionRequest(
            parent=MODEL,
            manifest=first.manifest,
            kind=events_pb2.ARTIFACT_KIND_MODEL,
            lineage=models_pb2.Lineage(job=f"projects/default/jobs/job-{number}", attempt=1),
        )
        await registry.stub.PublishVersion(request)
