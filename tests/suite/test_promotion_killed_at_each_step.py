"""SIGKILL of the registry before and after each step on disk of a promotion and of its end.

After each kill a reader of the deploy location sees the whole copy or none, and the next registry goes on by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import shutil
import time
from pathlib import Path

import grpc
import pytest

from services.registry.promotions.settings import PromotionSettings
from tests.support.killed_at import killed_at
from tests.support.registry import PROJECT, RunningRegistry, running_registry
from tests.support.tiny_model import make_tiny_model
from tuneforge.v1 import promotions_pb2 as pb
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

MODEL = f"{PROJECT}/models/tiny"
VERSION = f"{MODEL}/versions/1"
PLACE = "support/router/tickets/tiny-1"
POLL_S = 0.3
"""Longer than the work takes: each question is two steps of its own, at which a kill would prove nothing. Where it does
take longer, every further wait is twice as long."""
BUSY = {pb.PROMOTION_STATE_IN_PROGRESS, pb.PROMOTION_STATE_DELETING}
PROMOTE = pb.PromoteVersionRequest(
    name=VERSION, path="support/router/tickets", patterns=["config.json"], request_id="one"
)
UNPROMOTE = pb.UnpromoteVersionRequest(name=VERSION, request_id="two")
ASK = pb.GetPromotionRequest(name=f"{VERSION}/promotion")
ENDS = {"promote": pb.PROMOTION_STATE_COMPLETED, "unpromote": pb.PROMOTION_STATE_NOT_PROMOTED}


def act(stub: RegistryServiceStub, name: str) -> None:
    """Asks for a promotion or its end, and waits until it has ended."""
    promotion = stub.PromoteVersion(PROMOTE) if name == "promote" else stub.UnpromoteVersion(UNPROMOTE)
    wait_s = POLL_S
    while promotion.state in BUSY:
        time.sleep(wait_s)
        wait_s *= 2
        promotion = stub.GetPromotion(ASK)
    assert promotion.state == ENDS[name], promotion.message


def is_visible(deploy: Path) -> bool:
    """Returns whether a reader sees the copy; fails when it sees half of one."""
    place = deploy / PLACE
    if not place.exists():
        return False
    manifest = json.loads((place / "tuneforge-manifest.json").read_text())
    for entry in manifest["files"]:
        assert hashlib.sha256((place / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    assert len(manifest["files"]) == 1
    return True


def was_killed_at(step: int, folder: Path, name: str) -> bool:
    """Runs the operation on a registry that dies at a step; returns whether it died."""
    settings = {
        "TUNEFORGE_DATA": str(folder),
        "TUNEFORGE_REGISTRY_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_REGISTRY_METRICS_LISTEN": "",
        "TUNEFORGE_REGISTRY_RESERVE_BYTES": "0",
        "TUNEFORGE_REGISTRY_DEPLOY_LOCATION": str(folder / "deploy"),
        "TUNEFORGE_REGISTRY_COLLECT_EVERY_S": "0",
    }
    with (
        killed_at(step, "services.registry", settings, folder / "registry.log") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        stub = RegistryServiceStub(channel)
        stub.GetPromotion(ASK)  # whatever the first call of a process does is not what is tested
        service.arm()
        try:
            act(stub, name)
        except grpc.RpcError:
            service.expect_killed()
            return True
        return False


async def settled(registry: RunningRegistry) -> pb.Promotion:
    """Waits until the registry has no work left, and returns how it stands."""
    promotion = await registry.stub.GetPromotion(ASK)
    while promotion.state in BUSY:
        await asyncio.sleep(0.01)
        promotion = await registry.stub.GetPromotion(ASK)
    return promotion


async def prepare(folder: Path, name: str) -> None:
    """Makes a data folder in which the operation can be asked for."""
    deploy = folder / "prepared" / "deploy"
    where = PromotionSettings(folder=deploy)
    for made_before in (".tuneforge-staging", Path(PLACE).parent):  # making them is ten steps that leave nothing
        (deploy / made_before).mkdir(parents=True)
    async with running_registry(folder / "prepared" / "registry", promotions=where) as registry:
        await registry.imported(await registry.model(), make_tiny_model(folder / "model"))
        if name == "unpromote":
            await asyncio.to_thread(act, registry.blocking, "promote")


async def go_on(folder: Path, name: str) -> None:
    """Serves the registry again after a kill, and holds what it makes of what was begun."""
    deploy = folder / "deploy"
    async with running_registry(folder / "registry", promotions=PromotionSettings(folder=deploy)) as registry:
        promotion = await settled(registry)
        assert promotion.state in set(ENDS.values()), promotion.message
        assert is_visible(deploy) is (promotion.state == pb.PROMOTION_STATE_COMPLETED)
        if promotion.state != ENDS[name]:  # the kill came before it was taken down: it is asked for again
            await asyncio.to_thread(act, registry.blocking, name)
        assert is_visible(deploy) is (name == "promote")
        assert [each.state for each in (await settled(registry)).changes[:1]] == [ENDS[name]]
    assert not list((deploy / ".tuneforge-staging").glob("*")), "nothing half made is left"


@pytest.mark.parametrize(("name", "fewest"), [("promote", 10), ("unpromote", 8)])
def test_a_copy_is_whole_or_not_there_whenever_it_is_killed(name: str, fewest: int, tmp_path: Path) -> None:
    """Each step in turn is the last one; what was begun is ended by the next registry, and the call can be repeated."""
    asyncio.run(prepare(tmp_path, name))
    for step in itertools.count(1):
        folder = tmp_path / f"killed-at-{step}"
        shutil.copytree(tmp_path / "prepared", folder)
        was_killed = was_killed_at(step, folder, name)
        is_visible(folder / "deploy")
        asyncio.run(go_on(folder, name))
        if not was_killed:
            assert step > fewest, (folder / "registry.log").read_text()
            return
