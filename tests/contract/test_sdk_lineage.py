"""Lineage, revocation, verification and records as a person meets them: the commands, against the real registry."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from services.scheduler.store.events import chain
from tests.contract.test_registry_publish import JOB, publication
from tests.support import fake_scheduler
from tests.support.fake_scheduler import FakeScheduler
from tests.support.inference import LoopThread, loop_thread, serve_registry
from tests.support.registry import PROJECT, RunningRegistry
from tuneforge.cli.app import cli
from tuneforge.cli.failures import describe
from tuneforge.errors import NotFound
from tuneforge.manifest import IntegrityError, StoredDamage, verify
from tuneforge.records import event_bytes, first_head
from tuneforge.signatures import SIGNATURE_FILE, verify_bundle
from tuneforge.v1 import aliases_pb2, events_pb2, jobs_pb2, models_pb2


@dataclass(frozen=True, slots=True)
class World:
    """A registry with a history, and a scheduler that has its job."""

    registry: RunningRegistry
    scheduler: FakeScheduler
    made: models_pb2.ModelVersion
    environment: dict[str, str]

    def run(self, *arguments: str) -> Result:
        """Runs a command."""
        return CliRunner().invoke(cli, arguments, env=self.environment)

    def told(self, *arguments: str) -> str:
        """Runs a command that succeeds and returns what it prints."""
        done = self.run(*arguments)
        assert done.exit_code == 0, done.output
        return done.output


@pytest.fixture(scope="module", name="loop")
def _loop() -> Iterator[LoopThread]:
    with loop_thread() as loop:
        yield loop


@pytest.fixture(scope="module", name="world")
def _world(loop: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    registry = serve_registry(loop, folder / "registry")
    events = [step(number) for number in range(1, 21)]

    async def make() -> models_pb2.ModelVersion:
        request = await publication(registry, folder)
        heads = chain(first_head(JOB), [event_bytes(event) for event in events])
        request.lineage.run_record.num_events, request.lineage.run_record.head = len(events), heads[-1].hex()
        made = await registry.stub.PublishVersion(request)
        alias = f"{request.parent}/aliases/production"
        await registry.stub.SetAlias(aliases_pb2.SetAliasRequest(name=alias, version=made.name))
        return made

    made = loop.run(make())
    fake = FakeScheduler(job=jobs_pb2.Job(name=JOB, state=jobs_pb2.JOB_STATE_SUCCEEDED), events=events)
    fake.job.version.version = made.name
    with fake_scheduler.serve(fake) as address:
        addresses = {"TUNEFORGE_REGISTRY_ADDRESS": registry.address, "TUNEFORGE_SCHEDULER_ADDRESS": address}
        yield World(registry, fake, made, addresses)


def step(number: int, loss: float = 1.0) -> events_pb2.Event:
    """Returns the event of an optimiser step."""
    metrics = events_pb2.StepMetrics(step=number, loss=loss / number)
    return events_pb2.Event(job=JOB, job_seq=number, attempt=1, seq=number, step=metrics)


def words(text: str) -> list[list[str]]:
    """Returns the words of each line."""
    return [line.split() for line in text.splitlines()]


def test_a_bare_name_is_a_model_or_a_data_set(world: World, tmp_path: Path) -> None:
    """`x/1` is found whichever it is; where both exist, one is told how to say which."""
    assert world.told("lineage", "show", "greetings/1").startswith("greetings/1  data set")
    assert world.told("lineage", "show", "datasets/greetings/versions/1").startswith("greetings/1  data set")
    missing = world.run("lineage", "show", "nothing/7")
    assert missing.exit_code == 1
    assert "neither a model nor a data set" in str(missing.exception)
    model = "/".join(world.made.name.split("/")[3::2])
    assert world.told("lineage", "show", model).startswith(f"{model}  model")
    assert world.told("lineage", "show", "greetings").startswith("greetings/1  data set")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    world.told("datasets", "upload", str(rows), "--dataset", "base")
    both = world.run("lineage", "show", "base/1")
    assert both.exit_code == 1
    assert "of a model and also of a data set" in str(both.exception)
    assert "`models/base/1` or `datasets/base/1`" in str(getattr(both.exception, "cure", ""))
    assert world.told("lineage", "show", "models/base/1").startswith("base/1  model")


def test_affected_of_a_model_says_how_to_ask(world: World) -> None:
    """A plain name is a data set; one of a model is told as such, with the command, which then answers."""
    for name in ("greeter", "greeter/1"):
        done = world.run("lineage", "affected", name)
        assert done.exit_code != 0
        assert "tuneforge lineage affected models/greeter/1" in " ".join(done.output.split())
    assert "greeter@production" in world.told("lineage", "affected", "models/greeter/1")
    assert isinstance(world.run("lineage", "affected", "nobody").exception, NotFound)


def test_the_help_of_gates_keeps_its_example(world: World) -> None:
    """The policy in the help can be copied: its lines are as in a file."""
    lines = world.told("gates", "set", "--help").splitlines()
    assert "  rollback_skips_gates = true" in lines
    assert "  gates = [" in lines
    assert not any("\\b" in line for line in lines)


def test_lineage_is_a_tree_a_path_and_a_picture(world: World, tmp_path: Path) -> None:
    """Downwards from the data and upwards from the alias; the way between; an SVG with every thing."""
    down = words(world.told("lineage", "show", "datasets/greetings/1", "--down"))
    assert [line[:3] for line in down] == [
        ["greetings/1", "data", "set"],
        ["└─", "job-1", "job"],
        ["└─", "greeter/1", "model"],
        ["└─", "greeter@production", "alias"],
    ]
    up = world.told("lineage", "show", "models/greeter@production")
    assert {"greeter/1", "job-1", "base/1", "greetings/1"} <= set(up.split())
    found: dict[str, Any] = json.loads(world.told("lineage", "show", "greeter/1", "--json"))
    assert found["nodes"][0]["name"] == world.made.name
    path = words(world.told("lineage", "path", "models/greeter@production", "datasets/greetings/1"))
    assert [line[-1] for line in path] == ["greeter@production", "greeter/1", "greetings/1"]
    none = world.run("lineage", "path", "models/base/1", "datasets/greetings/1")
    assert (none.exit_code, "neither" in none.output) == (1, True)
    picture = tmp_path / "graph.svg"
    world.told("lineage", "draw", "greeter/1", "--out", str(picture), "--both")
    assert picture.read_text().count("<g>") == 5


def test_what_is_stored_is_verified(world: World, tmp_path: Path) -> None:
    """A good version is said to be one; a damaged file is named, and the exit code is 1; a download has a signature."""
    assert "every byte" in world.told("models", "verify", "greeter/1")
    assert "every byte" in world.told("datasets", "verify", "greetings/1")
    folder = tmp_path / "greeter"
    world.told("models", "download", "greeter/1", str(folder))
    from tuneforge import Client, _wire

    manifest = _wire.manifest(world.made.manifest)
    verify(folder, manifest, exclude={SIGNATURE_FILE})
    with Client(registry=world.registry.address) as client:
        keys = {each.key.key_id: each.key.pem for each in client.signing.all_keys()}
        assert client.signing.key().is_current
        assert client.signing.signature(world.made.name) == _wire.signature(world.made.signature)
    verify_bundle((folder / SIGNATURE_FILE).read_bytes(), manifest, keys, name=world.made.name)
    assert world.run("models", "signing-key").stdout in keys.values()
    file = next(file for file in manifest.files if file.path == "adapter_config.json")
    blob = next((world.registry.data / "blobs").rglob(f"*{file.sha256}*"))
    content = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(b"[" + content[1:])
    done = world.run("models", "verify", "greeter/1")
    assert done.exit_code == 1
    assert "INTEGRITY: adapter_config.json" in done.output
    done = world.run("models", "download", "greeter/1", str(tmp_path / "other"))
    assert isinstance(done.exception, StoredDamage)
    assert "`tuneforge models repair`" in describe(done.exception)
    assert "again." not in describe(done.exception)
    done = world.run("models", "repair", "greeter/1", str(tmp_path / "other"))
    assert isinstance(done.exception, IntegrityError)
    assert "adapter_config.json: expected sha256" in str(done.exception)
    assert "put back adapter_config.json" in world.told("models", "repair", "greeter/1", str(folder))
    assert "every byte" in world.told("models", "verify", "greeter/1")
    assert "nothing of it is damaged" in world.told("models", "repair", "greeter/1", str(folder))
    assert "nothing of it is damaged" in world.told("datasets", "repair", "greetings/1", str(folder))
    world.told("models", "download", "greeter/1", str(tmp_path / "other"))


def test_a_record_is_verified(world: World) -> None:
    """The events of the job are those of the version; one changed loss is found."""
    assert "20 events of job-1 are those recorded in greeter/1" in world.told("jobs", "verify-record", "job-1")
    good = world.scheduler.events[6]
    world.scheduler.events[6] = step(7, 0.9)
    done = world.run("jobs", "verify-record", "job-1", "--json")
    world.scheduler.events[6] = good
    assert done.exit_code == 1
    assert json.loads(done.output)["is_intact"] is False


def test_data_is_revoked_by_command(world: World) -> None:
    """A dry run marks nothing; then it is marked, listed and taken back, and the log has both."""
    assert words(world.told("lineage", "affected", "greetings/1"))[1][:2] == ["greeter@production", "greeter/1"]
    trial = world.told("datasets", "revoke", "greetings/1", "--reason", "no license", "--validate-only")
    assert "would be revoked:" in trial
    assert "greeter@production" in trial
    assert "nothing was ever revoked" in world.told("datasets", "revocations")
    world.told("datasets", "revoke", "greetings", "--reason", "no license")
    assert "[TAINTED]" in world.told("lineage", "show", "greeter/1")
    for kind, name, word in (("datasets", "greetings/1", "revoked:"), ("models", "greeter/1", "tainted by:")):
        line = next(line for line in world.told(kind, "show", name).splitlines() if line.startswith(word))
        assert line.endswith("no license")
    world.told("datasets", "unrevoke", "greetings", "--reason", "bought")
    assert "revoked" not in world.told("datasets", "show", "greetings/1")
    log = words(world.told("datasets", "revocations", "greetings"))
    assert [line[-1] for line in log[1:]] == ["bought", "license"]
    missing = world.run("datasets", "revoke", "none/7", "--reason", "x")
    assert missing.exit_code != 0
    assert PROJECT in str(missing.exception)
