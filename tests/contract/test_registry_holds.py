"""Holds of jobs and deployments: what they need is deleted by nobody, and whoever tries is told who needs it."""

import asyncio
import hashlib
import json
from pathlib import Path

from click.testing import CliRunner
from google.protobuf.timestamp_pb2 import Timestamp

from tests.contract.test_registry_retention import registry_with, rows_version
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, refused, running_registry
from tuneforge.cli.app import cli
from tuneforge.client import Client
from tuneforge.errors import Reason
from tuneforge.v1 import retention_pb2 as pb

pytestmark = EACH_DATABASE

JOB = f"{PROJECT}/jobs/one"
DEPLOYMENT = "projects/serving/deployments/answers"
OWNER = "scheduler-1"


async def hold(registry: RunningRegistry, holder: str, *versions: str, owner: str = OWNER) -> None:
    """Holds versions."""
    await registry.stub.HoldVersions(pb.HoldVersionsRequest(owner=owner, holder=holder, versions=versions))


async def release(registry: RunningRegistry, holder: str, *versions: str, owner: str = "") -> int:
    """Takes holds back and returns how many there were."""
    request = pb.ReleaseVersionsRequest(owner=owner, holder=holder, versions=versions)
    return (await registry.stub.ReleaseVersions(request)).num_released


async def held(registry: RunningRegistry, owner: str = OWNER, page_size: int = 0) -> list[tuple[str, str]]:
    """Returns all holds of a service."""
    found, token = [], ""
    while True:
        request = pb.ListHoldsRequest(owner=owner, page_size=page_size, page_token=token)
        answer = await registry.stub.ListHolds(request)
        assert all(each.create_time.seconds for each in answer.holds)
        found += [(each.holder, each.version) for each in answer.holds]
        if not (token := answer.next_page_token):
            return found


@on_loop
async def test_what_a_job_or_a_deployment_needs_is_not_deleted(tmp_path: Path) -> None:
    """Version, whole data set and expiry are refused with their names; released, it goes."""
    async with registry_with(tmp_path / "data", grace_s=-1) as registry:
        dataset = await registry.dataset()
        rows = await rows_version(registry, dataset, tmp_path)
        for _ in range(2):
            await hold(registry, JOB, rows)
            await hold(registry, DEPLOYMENT, rows, owner="inference-1")
        delete = pb.DeleteDatasetVersionRequest(name=rows)
        error = await refused(registry.stub.DeleteDatasetVersion(delete), Reason.IN_USE)
        assert error.metadata["holders"] == f"{JOB},{DEPLOYMENT}"
        assert f"job {JOB}, deployment {DEPLOYMENT}" in str(error)
        await refused(registry.stub.DeleteDataset(pb.DeleteDatasetRequest(name=dataset, force=True)), Reason.IN_USE)
        found = await registry.stub.GetRetention(pb.GetRetentionRequest(name=rows))
        kinds = {holder.name: holder.kind for holder in found.holders}
        assert kinds == {JOB: pb.HOLDER_KIND_JOB, DEPLOYMENT: pb.HOLDER_KIND_DEPLOYMENT}
        soon = Timestamp()
        soon.GetCurrentTime()
        soon.seconds += 1
        await registry.stub.SetExpiration(pb.SetExpirationRequest(name=rows, expire_time=soon))
        collected = pb.CollectGarbageResponse()
        while not collected.num_held_versions:
            collected = await registry.stub.CollectGarbage(pb.CollectGarbageRequest())
            assert not collected.num_expired_versions
            assert not collected.num_contents
        assert await release(registry, JOB, rows) == 1
        await refused(registry.stub.DeleteDatasetVersion(delete), Reason.IN_USE)
        assert [await release(registry, DEPLOYMENT) for _ in range(2)] == [1, 0]
        assert (await registry.stub.DeleteDatasetVersion(delete)).num_versions == 1


@on_loop
async def test_all_are_held_or_none(tmp_path: Path) -> None:
    """A version that is gone is named, and nothing is held of the rest; owners do not see each other's."""
    async with running_registry(tmp_path / "data") as registry:
        dataset = await registry.dataset()
        versions = [await rows_version(registry, dataset, tmp_path, count) for count in (3, 4, 5)]
        await registry.stub.DeleteDatasetVersion(pb.DeleteDatasetVersionRequest(name=versions[0]))
        error = await refused(hold(registry, JOB, *versions), Reason.NOT_FOUND)
        assert versions[0] in str(error)
        assert await held(registry) == []
        await hold(registry, JOB, *versions[1:])
        await hold(registry, DEPLOYMENT, versions[1])
        await hold(registry, JOB, versions[1], owner="scheduler-2")
        wanted = [(JOB, versions[1]), (JOB, versions[2]), (DEPLOYMENT, versions[1])]
        assert await held(registry) == await held(registry, page_size=1) == wanted
        assert await release(registry, JOB, owner=OWNER) == 2
        assert await held(registry, owner="scheduler-2") == [(JOB, versions[1])]


@on_loop
async def test_what_is_malformed_is_refused(tmp_path: Path) -> None:
    """Owner, holder and versions."""
    async with running_registry(tmp_path / "data") as registry:
        rows = await rows_version(registry, await registry.dataset(), tmp_path)
        for owner in ("", "a b", "x" * 65):
            assert fields_of(await refused(hold(registry, JOB, rows, owner=owner), Reason.INVALID_FIELD)) == ["owner"]
            assert fields_of(await refused(held(registry, owner=owner), Reason.INVALID_FIELD)) == ["owner"]
        assert fields_of(await refused(release(registry, JOB, owner="a b"), Reason.INVALID_FIELD)) == ["owner"]
        assert fields_of(await refused(hold(registry, JOB), Reason.INVALID_FIELD)) == ["versions"]
        assert fields_of(await refused(hold(registry, JOB, *[rows] * 101), Reason.INVALID_FIELD)) == ["versions"]
        assert fields_of(await refused(release(registry, JOB, *[rows] * 101), Reason.INVALID_FIELD)) == ["versions"]
        for holder in ("", rows, f"{PROJECT}/jobs/", "jobs/one"):
            await refused(hold(registry, holder, rows), Reason.INVALID_NAME)
            await refused(release(registry, holder), Reason.INVALID_NAME)
        await refused(hold(registry, JOB, "versions/1"), Reason.INVALID_NAME)
        bad = pb.ListHoldsRequest(owner=OWNER, page_token="nonsense")
        await refused(registry.stub.ListHolds(bad), Reason.INVALID_PAGE_TOKEN)


@on_loop
async def test_only_services_hold_and_people_may_take_back(tmp_path: Path) -> None:
    """An editor cannot hold or list; in the stead of a service that is gone they release, by SDK too."""
    roles = {"eva": "editor", "suite": "service", "vera": "viewer"}
    tokens = tmp_path / "tokens.json"
    tokens.write_text(
        json.dumps(
            [
                {
                    "token_sha256": hashlib.sha256(name.encode()).hexdigest(),
                    "principal": name,
                    "roles": [role],
                    "projects": ["*"],
                }
                for name, role in roles.items()
            ]
        )
    )
    async with running_registry(tmp_path / "data") as registry:
        rows = await rows_version(registry, await registry.dataset(), tmp_path)
    async with running_registry(tmp_path / "data", tokens_file=tokens) as registry:

        def as_(name: str) -> tuple[tuple[str, str], ...]:
            return (("authorization", f"Bearer {name}"),)

        request = pb.HoldVersionsRequest(owner=OWNER, holder=JOB, versions=[rows])
        listing, taking = pb.ListHoldsRequest(owner=OWNER), pb.ReleaseVersionsRequest(holder=JOB)
        stub = registry.stub
        await refused(stub.HoldVersions(request, metadata=as_("eva")), Reason.PERMISSION_DENIED)
        await refused(stub.ListHolds(listing, metadata=as_("eva")), Reason.PERMISSION_DENIED)
        await refused(stub.ReleaseVersions(taking, metadata=as_("vera")), Reason.PERMISSION_DENIED)
        await stub.HoldVersions(request, metadata=as_("suite"))

        def by_sdk() -> int:
            with Client(registry=registry.address, token="eva") as client:
                return client.retention.release(JOB)

        assert await asyncio.to_thread(by_sdk) == 1
        await stub.HoldVersions(request, metadata=as_("suite"))
        environment = {"TUNEFORGE_REGISTRY_ADDRESS": registry.address, "TUNEFORGE_TOKEN": "eva"}
        arguments = ["retention", "--release", JOB]
        done = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment)
        assert "1 versions released" in done.output


@on_loop
async def test_many_holders_are_served_by_one_call_or_none_of_them(tmp_path: Path) -> None:
    """All are held and counted; a version that is not there, a bad name or too many, and nobody is."""
    async with registry_with(tmp_path / "data") as registry:
        dataset = await registry.dataset()
        rows = await rows_version(registry, dataset, tmp_path)
        others = [pb.HolderVersions(holder=f"{PROJECT}/jobs/j{number}", versions=[rows]) for number in range(3)]

        def together(others: list[pb.HolderVersions]) -> pb.HoldVersionsRequest:
            return pb.HoldVersionsRequest(owner=OWNER, holder=JOB, versions=[rows], others=others)

        for wrong, reason in (
            ([pb.HolderVersions(holder=DEPLOYMENT, versions=[f"{dataset}/versions/9"])], Reason.NOT_FOUND),
            ([pb.HolderVersions(holder="somebody", versions=[rows])], Reason.INVALID_NAME),
            ([pb.HolderVersions(holder=DEPLOYMENT)], Reason.INVALID_FIELD),
            (others * 86, Reason.INVALID_FIELD),
        ):
            await refused(registry.stub.HoldVersions(together(wrong)), reason)
        assert await held(registry) == []
        answer = await registry.stub.HoldVersions(together(others))
        assert answer.num_holders == 4
        assert await held(registry) == sorted([(JOB, rows), *((each.holder, rows) for each in others)])

        def released(others: list[pb.HolderVersions]) -> pb.ReleaseVersionsRequest:
            return pb.ReleaseVersionsRequest(owner=OWNER, holder=JOB, others=others)

        await refused(registry.stub.ReleaseVersions(released([pb.HolderVersions(holder="some")])), Reason.INVALID_NAME)
        await refused(registry.stub.ReleaseVersions(released(others * 86)), Reason.INVALID_FIELD)
        gone = await registry.stub.ReleaseVersions(released([others[0], pb.HolderVersions(holder=others[1].holder)]))
        assert (gone.num_released, gone.num_holders) == (3, 3)
        assert await held(registry) == [(others[2].holder, rows)]
