"""Aliases, gates, evaluations and promotions through the SDK and the command line, on a real registry."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.registry.promotions.settings import PromotionSettings
from tests.support.event_loop import on_loop
from tests.support.gated_registry import ROWS, gated_registry, row_id
from tests.support.registry import RunningRegistry, running_registry
from tests.support.registry_process import RegistryProcess
from tuneforge import (
    ABSENT,
    Client,
    GateFailed,
    InvalidArgument,
    MoveKind,
    NotFound,
    PromotionState,
    WatchOptions,
)
from tuneforge._alias_watch import AliasWatch

POLICY = {
    "alias": "production",
    "rollback_skips_gates": True,
    "gates": [
        {"id": "floor", "metric": "accuracy", "at_least": 0.8},
        {"id": "better", "compare": "exact_match", "on": "test/1", "resamples": 200, "slices": {"first": 0.3}},
        {"id": "people", "approvals": 1},
    ],
}


def use_everything(address: str) -> None:
    """What a release script does: gates, evaluation, a refusal, approvals, moves, the past, a rollback."""
    with Client(registry=address) as client:
        policy = client.gates.set("tiny", "quality", POLICY, expected=ABSENT, reason="house")
        assert client.gates.get("tiny", "quality") == policy
        assert list(client.gates.list("tiny")) == [policy]
        assert [change.reason for change in client.gates.log("tiny", "quality")] == ["house"]
        rows = [row_id(number) for number in range(ROWS)]
        first = client.evaluations.record(
            "tiny/2", "test/1", "exact_match", dict.fromkeys(rows, 0.0), slices={"first": rows[:20]}
        )
        client.evaluations.record(
            "tiny/3", "test/1", "exact_match", dict.fromkeys(rows, 1.0), slices={"first": rows[:20]}
        )
        assert list(client.evaluations.list("tiny/2")) == [first]
        with pytest.raises(GateFailed) as refusal:
            client.aliases.set("tiny", "production", 2)
        assert [each.field for each in refusal.value.fields] == ["quality/people"]
        forced = client.aliases.set("tiny", "production", 2, expected=ABSENT, reason="bootstrap", force=True)
        report = client.gates.check("tiny", "production", "tiny/3")
        assert [(each.gate, each.is_passed) for each in report.results] == [
            ("floor", True),
            ("better", True),
            ("people", False),
        ]
        evidence = report.results[1].comparison
        assert evidence is not None
        assert (evidence.effect, evidence.lower_bound, evidence.slices[0].is_passed) == (1.0, 1.0, True)
        client.gates.approve("tiny", "production", 3, reason="yes")
        client.gates.revoke_approval("tiny", "production", 3, reason="no")
        assert [each.is_revoked for each in client.gates.approvals("tiny", "production", 3)] == [True, False]
        moved = client.aliases.set("tiny", "production", 3, expected=forced, reason="better", force=True)
        assert client.aliases.get("tiny", "production", as_of=forced.update_time).version.endswith("/2")
        with pytest.raises(NotFound):
            client.aliases.get("tiny", "production", as_of=forced.update_time - timedelta(microseconds=1))
        with pytest.raises(InvalidArgument):
            client.aliases.get("tiny", "production", as_of=datetime(2026, 1, 1))
        back = client.aliases.rollback("tiny", "production", expected=moved, reason="slow")
        assert back.version.endswith("/2")
        log = list(client.aliases.log("tiny", "production"))
        assert [each.kind for each in log] == [MoveKind.ROLLBACK, MoveKind.SET, MoveKind.SET]
        assert [each.is_forced for each in log] == [False, True, True]
        client.aliases.delete("tiny", "production", expected=back, reason="retired")
        assert not list(client.aliases.list("tiny"))
        client.gates.delete("tiny", "quality", etag=policy.etag)


@on_loop
async def test_a_release_script_through_the_sdk(tmp_path: Path) -> None:
    """Every method of aliases, gates and evaluations, with what it gives back."""
    figures = ({"accuracy": 0.9}, {"accuracy": 0.95})
    async with gated_registry(tmp_path, *figures) as gated:
        await asyncio.to_thread(use_everything, gated.registry.address)


def use_promotions(address: str) -> None:
    """Promotes, looks, takes away."""
    with Client(registry=address) as client:
        assert client.promotions.get("tiny/1").state is PromotionState.NOT_PROMOTED
        client.promotions.promote("tiny", "a/b/c", patterns=["*.json"], reason="go")
        done = client.promotions.wait("tiny/1", timeout_s=30)
        assert (done.state, done.destination) == (PromotionState.COMPLETED, "a/b/c/tiny-1")
        assert [each.state for each in client.promotions.list(states=[PromotionState.COMPLETED])] == [done.state]
        client.promotions.unpromote("tiny/1")
        assert client.promotions.wait("tiny/1", timeout_s=30).state is PromotionState.NOT_PROMOTED


async def model_of(registry: RunningRegistry, folder: Path) -> None:
    """Imports version 1 of `tiny`."""
    from tests.support.tiny_model import make_tiny_model

    await registry.imported(await registry.model(), make_tiny_model(folder / "model"))


@on_loop
async def test_promotions_through_the_sdk(tmp_path: Path) -> None:
    """Promote, wait, list and unpromote."""
    where = PromotionSettings(folder=tmp_path / "deploy")
    async with running_registry(tmp_path / "data", promotions=where) as registry:
        await model_of(registry, tmp_path)
        await asyncio.to_thread(use_promotions, registry.address)


@pytest.mark.heavy
def test_a_watch_through_the_sdk_survives_kills_of_the_registry(tmp_path: Path) -> None:
    """The registry is killed and started again between moves: each comes once, in order; a cursor goes on exactly."""
    process = RegistryProcess(tmp_path / "data")
    process.start()
    try:
        with Client(registry=process.address) as client:
            from tests.support.tiny_model import make_tiny_model

            for seed in range(2):
                client.models.import_folder(make_tiny_model(tmp_path / str(seed), seed=seed), "tiny")
            client.aliases.set("tiny", "production", 1)
            breaks: list[str] = []
            options = WatchOptions(on_break=lambda error: breaks.append(error.reason))
            snapshots: list[int] = []
            with client.aliases.watch("tiny", options=options, on_snapshot=lambda a: snapshots.append(len(a))) as moves:
                found = []
                for number in range(3):
                    if number:
                        client.aliases.set("tiny", "production", 1 + number % 2)
                        found.append(next(moves).sequence)
                    else:
                        client.aliases.set("tiny", "staging", 1)
                        assert next(moves).name.endswith("/staging")
                    process.kill()
                    process.start()
                assert found == [2, 3]
            assert snapshots == [1]
            assert breaks
            _check_cursor(client)
    finally:
        process.kill()


def _check_cursor(client: Client) -> None:
    """A cursor taken in the middle of a message leads to the very next move."""
    seen = []
    with client.aliases.watch() as moves:
        client.aliases.set("tiny", "canary", 1)
        assert isinstance(moves, AliasWatch)
        seen.append(next(moves).name)
        cursor = moves.cursor
    for version in (2, 1, 2):
        client.aliases.set("tiny", "canary", version)
    sequences = []
    for _ in range(3):
        with client.aliases.watch(cursor=cursor) as moves:
            sequences.append(next(moves).sequence)
            cursor = moves.cursor
    assert sequences == [2, 3, 4]


def run(environment: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command."""
    command = [sys.executable, "-m", "tuneforge.cli", *arguments]
    return subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)


def use_commands(address: str, folder: Path) -> None:
    """The commands of a release, in order."""
    environment = {**os.environ, "TUNEFORGE_REGISTRY_ADDRESS": address}
    policy = folder / "gates.json"
    policy.write_text(json.dumps({**POLICY, "gates": POLICY["gates"][:1]}))  # type: ignore[index]
    done = run(environment, "gates", "set", "tiny", "quality", str(policy), "--reason", "house")
    assert "floor: accuracy at least 0.8" in done.stdout, done.stderr
    scores = folder / "scores.jsonl"
    scores.write_text("".join(json.dumps({"row": row_id(n), "score": n % 2, "slices": ["a"]}) + "\n" for n in range(4)))
    done = run(environment, "evaluations", "record", "tiny/2", "test/1", "exact_match", str(scores))
    assert "exact_match 0.5 on 4 rows of test/1" in done.stdout, done.stderr
    done = run(environment, "gates", "check", "tiny@production", "1")
    assert (done.returncode, "FAIL  quality/floor: accuracy is not recorded" in done.stdout) == (1, True)
    done = run(environment, "aliases", "set", "tiny", "production", "1")
    assert done.returncode == 1
    assert "gate 'floor' of 'quality' keeps production from version 1" in done.stderr
    assert run(environment, "aliases", "set", "tiny", "production", "2", "--reason", "first").returncode == 0
    moved = datetime.now(UTC)
    done = run(environment, "aliases", "set", "tiny", "production", "1", "--force", "--reason", "a test")
    assert done.stdout == "tiny@production -> tiny/1\n", done.stderr
    done = run(environment, "aliases", "show", "tiny", "production", "--as-of", moved.isoformat())
    assert "tiny/versions/2" in done.stdout, done.stderr
    done = run(environment, "aliases", "rollback", "tiny", "production", "--reason", "back")
    assert done.stdout == "tiny@production -> tiny/2\n", done.stderr
    done = run(environment, "aliases", "log", "tiny", "production")
    assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == ["rollback", "set", "set"]
    assert "forced" in done.stdout
    done = run(environment, "promotions", "promote", "tiny/2", "a/b/c")
    assert (done.returncode, "TUNEFORGE_REGISTRY_DEPLOY_LOCATION" in done.stderr) == (1, True)


@on_loop
async def test_a_release_on_the_command_line(tmp_path: Path) -> None:
    """Gates, evaluation, refusal with exit code 1, forced move, the past, rollback, log."""
    async with gated_registry(tmp_path, {"accuracy": 0.9}) as gated:
        await asyncio.to_thread(use_commands, gated.registry.address, tmp_path)
