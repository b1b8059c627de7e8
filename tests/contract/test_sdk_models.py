"""Models in SDK and command line, against the real registry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.registry_process import RegistryProcess
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge import Client, Conflict, FailedPrecondition, InvalidArgument
from tuneforge.checks import Check, report_json
from tuneforge.cli.app import cli
from tuneforge.model_values import ModelFacts, ModelFilter, SizeClass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running registry."""
    registry = RegistryProcess(tmp_path_factory.mktemp("registry"))
    registry.start()
    yield registry.address
    registry.kill()


@pytest.fixture
def client(address: str, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client with a project of its own."""
    project = request.node.name.replace("_", "-")[:60].strip("-")
    with Client(registry=address, project=project) as connected:
        yield connected


def run(client: Client, address: str, *arguments: str) -> Result:
    """Runs a command in the client's project."""
    environment = {"TUNEFORGE_REGISTRY_ADDRESS": address, "TUNEFORGE_PROJECT": client.project}
    return CliRunner().invoke(cli, arguments, env=environment)


def test_facts_are_changed_and_found(client: Client) -> None:
    """Only what is given changes; a stale value is a conflict; filters and order reach the registry."""
    made = client.models.create("one", facts=ModelFacts(description="A.", tags=["x"], metadata={"k": "v"}))
    client.models.create("two")
    changed = client.models.update("one", ModelFacts(license="mit"), expected=made)
    assert (changed.description, changed.tags, changed.license, changed.metadata) == ("A.", ("x",), "mit", {"k": "v"})
    with pytest.raises(Conflict):
        client.models.update("one", ModelFacts(license="apache-2.0"), expected=made)
    assert [model.license for model in client.models.list(ModelFilter(tags=["x"], metadata={"k": "v"}))] == ["mit"]
    assert [model.name[-3:] for model in client.models.list(order_by="name desc")] == ["two", "one"]
    with pytest.raises(InvalidArgument):
        list(client.models.list(ModelFilter(task="telepathy")))


def test_versions_are_described_checked_and_profiled(client: Client, tmp_path: Path) -> None:
    """Facts of a version, a report from outside, its card and its profile."""
    tiny = make_tiny_model(tmp_path / "tiny")
    version = client.models.import_folder(tiny, "tiny", facts=ModelFacts(license="mit", tags=["small"]))
    assert (version.license, version.tags) == ("mit", ("small",))
    assert (version.task, version.size_class, version.seed) == ("text-generation", SizeClass.SMALL, None)
    said = ModelFacts(metadata={"intended_use": "Tests."})
    client.models.update_version("tiny", said)
    report = client.models.add_validation(
        "tiny/1", [Check(name="accuracy", passed=True, score=0.5, threshold=0.4, message="Fine.")], source="ci"
    )
    assert list(client.models.validations("tiny")) == [report]
    assert json.loads(report.to_json())["checks"][0]["check_name"] == "accuracy"
    assert "Tests." in client.models.card("tiny/1")
    assert client.models.profile("tiny/1", precision="int8").recommended_partition_gb == 0.01
    found = client.models.versions("tiny", ModelFilter(size_class=SizeClass.SMALL), order_by="size")
    assert [each.metadata["intended_use"] for each in found] == ["Tests."]


def test_adapters_and_configurations_come_in(client: Client, tmp_path: Path) -> None:
    """An adapter with its base, a configuration with its seed; what does not fit or is not there is told."""
    tiny = make_tiny_model(tmp_path / "tiny")
    client.models.import_folder(tiny, "base")
    adapter = client.models.import_adapter(make_tiny_adapter(tmp_path / "adapter"), "tuned", base="base")
    assert adapter.lineage.base is not None
    assert adapter.lineage.base.digest == client.models.version("base/1").manifest.digest
    wide = make_tiny_adapter(tmp_path / "wide", hidden=128)
    with pytest.raises(FailedPrecondition):
        client.models.import_adapter(wide, "tuned", base="base/1")
    drawn = client.models.import_config(tiny / "config.json", "drawn", seed=7)
    assert drawn.seed == 7
    assert "model.safetensors" not in {file.path for file in drawn.manifest.files}
    assert client.models.import_config(tiny, "drawn", seed=7).name == drawn.name
    assert client.models.import_config(tiny, "drawn", seed=8).name != drawn.name
    with pytest.raises(InvalidArgument):
        client.models.import_config(tmp_path / "adapter", "drawn", seed=1)
    with pytest.raises(InvalidArgument):
        client.models.import_adapter(tiny, "tuned", base="base")


def test_links_that_lead_out_are_not_followed(client: Client, tmp_path: Path) -> None:
    """B65: a link to a file elsewhere is refused before it is read; a hub's cache, which is made of links, is not."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "x"}')
    tiny = make_tiny_model(tmp_path / "tiny")
    (tiny / "extra.json").symlink_to(secret)
    with pytest.raises(InvalidArgument) as caught:
        client.models.import_folder(tiny, "tiny")
    assert caught.value.metadata["codes"] == "LINK_NOT_ALLOWED"
    assert not list(client.models.list())
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (tiny / "extra.json").unlink()
    for number, file in enumerate(sorted(tiny.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(blobs / str(number))
    assert client.models.import_folder(snapshot, "tiny").name.endswith("/versions/1")


def assert_each(client: Client, address: str, steps: Sequence[tuple[Sequence[str], str]]) -> None:
    """Runs commands one after the other: each succeeds and prints what is expected of it."""
    for arguments, expected in steps:
        done = run(client, address, *arguments)
        assert done.exit_code == 0, (arguments, done.output)
        assert expected in done.output, (arguments, done.output)


def test_commands(client: Client, address: str, tmp_path: Path) -> None:
    """create, import with a base or a seed, update, list with filters, card, profile, delete."""
    tiny = make_tiny_model(tmp_path / "tiny")
    adapter = make_tiny_adapter(tmp_path / "adapter")
    steps = [
        (("models", "create", "place", "--tag", "red", "--license", "mit"), "license"),
        (("models", "import", str(tiny), "--model", "base"), "base/1: LlamaForCausalLM"),
        (("models", "import", str(adapter), "--model", "tuned", "--adapter-of", "base/1"), "adapter on Llama"),
        (
            ("models", "import", str(tiny / "config.json"), "--model", "drawn", "--config-only", "--seed", "7"),
            "drawn/1",
        ),
        (("models", "update", "tuned/1", "--tag", "blue", "--metadata", "notes=Mine."), "blue"),
        (("models", "update", "place", "--untag", "red", "--tag", "green"), "green"),
        (("models", "list", "--tag", "blue", "--task", "text-generation", "--sort", "date desc"), "tuned"),
        (("models", "versions", "tuned", "--kind", "adapter"), "tuned/1"),
        (("models", "show", "drawn/1"), "seed"),
        (("models", "card", "tuned/1"), "## Notes\n\nMine."),
        (("models", "profile", "tuned/1", "--precision", "fp16"), "memory by rule"),
        (("models", "profile", "base/1", "--document"), '"memory_gb": 0.01'),
    ]
    assert_each(client, address, steps)
    assert "place" not in run(client, address, "models", "list", "--tag", "red").output
    assert run(client, address, "models", "list", "--task", "telepathy").exit_code != 0
    client.aliases.set("base", "production", "1")
    gone = run(client, address, "models", "delete", "drawn", "place", "base", "--force")
    assert (gone.exit_code, gone.output.splitlines()) == (
        1,
        ["deleted drawn with 1 versions", "deleted place with 0 versions"],
    )
    assert "alias" in str(gone.exception)


def test_aliases_by_command(client: Client, address: str, tmp_path: Path) -> None:
    """MODEL@ALIAS is understood wherever an alias is named; models and versions show theirs."""
    client.models.import_folder(make_tiny_model(tmp_path / "tiny"), "base")
    client.models.import_adapter(make_tiny_adapter(tmp_path / "adapter"), "tuned", base="base/1")
    steps = [
        (("aliases", "set", "base@production", "1"), "base@production -> base/1"),
        (("aliases", "set", "tuned", "staging", "1"), "tuned@staging -> tuned/1"),
        (("models", "show", "base"), "production -> base/1"),
        (("models", "show", "tuned@staging"), "aliases:      staging"),
        (("models", "versions", "base"), "base/1   production"),
        (("aliases", "list"), "tuned@staging"),
        (("aliases", "list", "tuned"), "staging  tuned/1"),
        (("aliases", "log", "tuned@staging"), "set"),
        (("aliases", "show", "--json", "tuned@staging"), "tuned/versions/1"),
        (("aliases", "set", "--reason", "a@b", "tuned@staging", "1"), "tuned@staging -> tuned/1"),
        (("aliases", "set", "tuned@staging", "tuned@staging", "--reason", "again"), "tuned@staging -> tuned/1"),
        (("aliases", "rollback", "tuned@staging", "--to-move", "1"), "tuned@staging -> tuned/1"),
    ]
    assert_each(client, address, steps)


def test_versions_are_compared_and_brought_by_command(client: Client, address: str, tmp_path: Path) -> None:
    """Diff tells in what two versions differ, by its exit code too; download brings the files that were asked for."""
    tiny = make_tiny_model(tmp_path / "tiny")
    client.models.import_folder(tiny, "base")
    drawn = ("models", "import", str(tiny / "config.json"), "--model", "drawn", "--config-only", "--seed", "7")
    assert_each(client, address, [(drawn, "drawn/1"), (("aliases", "set", "base@production", "1"), "base/1")])
    different = run(client, address, "models", "diff", "base", "drawn/1")
    assert different.exit_code == 1
    assert {"seed", "file"} <= {line.split()[0] for line in different.output.splitlines()}
    assert_each(client, address, [(("models", "diff", "base", "base@production"), "are the same")])
    part = tmp_path / "part"
    assert "1 files" in run(client, address, "models", "download", "base", str(part), "--include", "toke*g.json").output
    assert {file.name for file in part.iterdir()} == {"tokenizer_config.json"}


def test_reports_and_certificates_by_command(client: Client, address: str, tmp_path: Path) -> None:
    """Validation fails without a report and after a failed check; certificate shows the steps in their order."""
    client.models.import_folder(make_tiny_model(tmp_path / "tiny"), "base")
    assert run(client, address, "models", "validation", "base/1").exit_code == 1
    checks = [Check(name="safety", passed=True, message="Fine.")]
    client.models.add_validation("base/1", checks)
    good = run(client, address, "models", "validation", "base/1")
    assert (good.exit_code, good.output.endswith("Summary: 1/1 checks passed\n")) == (0, True)
    client.models.add_validation("base/1", [*checks, Check(name="speed", passed=False, message="Slow.")])
    bad = run(client, address, "models", "validation", "base/1", "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.output)["checks_passed"] == 1
    details = {f"step_{step}": "same" for step in (11, 9, 10)}
    proof = Check(name="resume", passed=True, message="All steps were the same.", details={**details, "job": "verify"})
    client.models.add_validation("base/1", [proof])
    assert "Slow." in run(client, address, "models", "validation", "base/1").output
    shown = run(client, address, "models", "certificate", "base/1").output.splitlines()
    assert [line.partition(":")[0] for line in shown] == ["passed", "found", "job", "step_9", "step_10", "step_11"]


def test_a_report_that_was_made_elsewhere_is_kept(client: Client, address: str, tmp_path: Path) -> None:
    """As `tuneforge validate` writes it, under who made it; what is no report is refused in words and not kept."""
    client.models.import_folder(make_tiny_model(tmp_path / "tiny"), "base")
    kept = tmp_path / "report.json"
    kept.write_text(
        report_json("base/1", [Check(name="red_team", passed=True, score=0.5, message="Quiet.")], {"a": "b"})
    )
    recorded = run(client, address, "models", "validation", "base/1", "--record", str(kept), "--source", "red team")
    assert (recorded.exit_code, recorded.output.endswith("Summary: 1/1 checks passed\n")) == (0, True)
    newest = next(client.models.validations("base/1"))
    assert (newest.checks[0].score, newest.not_run, newest.source) == (0.5, {"a": "b"}, "red team")
    not_finite = '{"checks": [{"check_name": "fine", "score": 1}, {"check_name": "red_team", "%s": %s}]}'
    for wrong, words in (
        ('{"checks": [{"verdict": 1}]}', 'no field named "verdict"'),
        ("{}", "checks"),
        ("[", "JSON"),
        (not_finite % ("score", "NaN"), "the score of the check 'red_team' is nan, no finite number"),
        (not_finite % ("threshold", "-1e999"), "the threshold of the check 'red_team' is -inf, no finite number"),
        (not_finite % ("score", '"Infinity"'), "the score of the check 'red_team' is Infinity, no finite number"),
    ):
        kept.write_text(wrong)
        refused = run(client, address, "models", "validation", "base/1", "--record", str(kept))
        assert (refused.exit_code, words in str(refused.exception)) == (1, True), refused.exception
