"""Recipes over a real socket: files that hang, crash or shout hurt nobody; what users and operators see."""

import asyncio
import hashlib
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.grpckit.settings import Environment
from services.registry.recipes.settings import RecipeSettings
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import fields_of, refused, running_registry
from tuneforge.cli.app import cli
from tuneforge.client import Client
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.v1 import recipes_pb2 as pb

pytestmark = EACH_DATABASE

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"
GOOD = (EXAMPLES / "mnist.py").read_text()


def until_size(path: Path, size: int) -> None:
    """Returns when a file has that many bytes; another process writes it."""
    while not path.exists() or path.stat().st_size < size:
        time.sleep(0.01)


def renamed(name: str) -> str:
    """Returns the example under another name."""
    return GOOD.replace('name = "MNIST"', f'name = "{name}"', 1)


@on_loop
async def test_files_that_misbehave_hurt_nobody(tmp_path: Path) -> None:
    """A hang, a crash, an exit, noise on stdout, a syntax error: each is told, and the good ones are there."""
    files = {
        "crash.py": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        "exits.py": "raise SystemExit(0)\n",
        "good.py": GOOD,
        "hangs.py": "while True:\n    pass\n",
        "noisy.py": "print('{\"done\": true}' * 1000)\n" + renamed("Noisy"),
        "syntax.py": "def broken(:\n",
        "threads.py": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
        + renamed("Threads"),
    }
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    async with running_registry(tmp_path / "before", recipes=RecipeSettings(folder=EXAMPLES)) as registry:
        began = time.monotonic()
        await registry.stub.ListRecipes(pb.ListRecipesRequest())
        usual_s = time.monotonic() - began
    settings = RecipeSettings(folder=folder, file_limit_s=max(3.0, 10 * usual_s))
    async with running_registry(tmp_path / "data", recipes=settings) as registry:
        listed = await registry.stub.ListRecipes(pb.ListRecipesRequest())
        assert [each.name for each in listed.recipes] == ["recipes/MNIST", "recipes/Noisy", "recipes/Threads"]
        codes = {each.file: each.code for each in listed.problems}
        assert codes.keys() == {"crash.py", "exits.py", "hangs.py", "syntax.py"}
        assert set(codes.values()) <= {"BROKEN_FILE", "TIMEOUT"}
        assert codes["syntax.py"] == codes["exits.py"] == "BROKEN_FILE"


@on_loop
async def test_a_caller_who_leaves_does_not_end_the_reading(tmp_path: Path) -> None:
    """Who waits longer gets it, from the same reading; a registry that ends does not wait for a file."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    count = tmp_path / "count"
    (folder / "slow.py").write_text(
        f"import time\nopen({str(count)!r}, 'a').write('x')\ntime.sleep(1)\n" + renamed("Slow")
    )
    async with running_registry(tmp_path / "data", recipes=RecipeSettings(folder=folder)) as registry:
        hasty = registry.stub.ListRecipes(pb.ListRecipesRequest())
        patient = registry.stub.ListRecipes(pb.ListRecipesRequest())
        await asyncio.to_thread(until_size, count, 1)
        hasty.cancel()
        assert [each.name for each in (await patient).recipes] == ["recipes/Slow"]
        assert count.read_text() == "x"
        (folder / "hangs.py").write_text("while True:\n    pass\n")
        ending = registry.stub.ListRecipes(pb.ListRecipesRequest())
        await asyncio.to_thread(until_size, count, 2)
        ending.cancel()


@on_loop
async def test_a_changed_folder_is_read_again(tmp_path: Path) -> None:
    """A new file is there at the next call, a removed one is not; pages go by name."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    async with running_registry(tmp_path / "data", recipes=RecipeSettings(folder=folder)) as registry:
        assert not (await registry.stub.ListRecipes(pb.ListRecipesRequest())).recipes
        for name in ("Second", "First", "Third"):
            (folder / f"{name}.py").write_text(renamed(name))
        page = await registry.stub.ListRecipes(pb.ListRecipesRequest(page_size=2))
        assert [each.name for each in page.recipes] == ["recipes/First", "recipes/Second"]
        rest = await registry.stub.ListRecipes(pb.ListRecipesRequest(page_size=2, page_token=page.next_page_token))
        assert [each.name for each in rest.recipes] == ["recipes/Third"]
        assert not rest.next_page_token
        (folder / "First.py").unlink()
        await refused(registry.stub.GetRecipe(pb.GetRecipeRequest(name="recipes/First")), Reason.NOT_FOUND)
        await refused(registry.stub.GetRecipe(pb.GetRecipeRequest(name="recipes/no-dash")), Reason.INVALID_NAME)


@on_loop
async def test_all_wrong_arguments_are_in_one_answer(tmp_path: Path) -> None:
    """Also what is no JSON, and what is too long."""
    async with running_registry(tmp_path, recipes=RecipeSettings(folder=EXAMPLES)) as registry:
        wrong = json.dumps({"epochs": 0, "batchsize": 3, "lr": "fast", "seed": 2})
        request = pb.ResolveRecipeRequest(name="recipes/MNIST", arguments_json=wrong, device="tpu")
        error = await refused(registry.stub.ResolveRecipe(request), Reason.INVALID_FIELD)
        names = ["epochs", "batchsize", "lr"]
        assert fields_of(error) == [*(f"training_arguments.{name}" for name in names), "device"]
        assert "did you mean 'batch_size'" in str(error)
        for text in ("[", '{"epochs": 1, "epochs": 2}', " " * 70_000):
            request = pb.ResolveRecipeRequest(name="recipes/MNIST", arguments_json=text)
            await refused(registry.stub.ResolveRecipe(request), Reason.INVALID_FIELD)


@on_loop
async def test_problems_are_for_operators(tmp_path: Path) -> None:
    """A user sees the recipes, not the operator's mistakes."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "good.py").write_text(GOOD)
    tokens = tmp_path / "tokens.json"
    entries = [
        {
            "token_sha256": hashlib.sha256(role.encode()).hexdigest(),
            "principal": role,
            "roles": [role],
            "projects": ["default"],
        }
        for role in ("viewer", "admin")
    ]
    tokens.write_text(json.dumps(entries))
    settings = RecipeSettings(folder=folder)
    async with running_registry(tmp_path / "data", recipes=settings, tokens_file=tokens) as registry:
        for role, count in (("viewer", 0), ("admin", 1)):
            metadata = (("authorization", f"Bearer {role}"),)
            listed = await registry.stub.ListRecipes(pb.ListRecipesRequest(), metadata=metadata)
            assert len(listed.recipes) == 1
            assert len(listed.problems) == count


@on_loop
async def test_sdk_and_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """List, show, resolve; a class registered by hand; the check of a file."""
    settings = RecipeSettings(classes=("examples.recipes.mnist:MNIST", "examples.recipes.mnist:Absent"))
    async with running_registry(tmp_path, recipes=settings) as registry:
        monkeypatch.setenv("TUNEFORGE_REGISTRY_ADDRESS", registry.address)

        def use() -> None:
            with Client(patience_s=0) as client:
                (found,) = client.recipes.list()
                assert found.defaults["epochs"] == 1
                assert found == client.recipes.get("MNIST")
                assert found.schema["properties"]["epochs"]["minimum"] == 1
                assert [problem.code for problem in client.recipes.problems()] == ["BROKEN_FILE"]
                resolved = client.recipes.resolve("MNIST", {"epochs": 2}, dataset="a/rows.csv")
                assert resolved.arguments["epochs"] == 2
                assert resolved.dataset_name == "rows.csv"
                with pytest.raises(InvalidArgument) as error:
                    client.recipes.resolve("MNIST", {"epoch": 2})
                assert [violation.field for violation in error.value.fields] == ["training_arguments.epoch"]
            runner = CliRunner()
            for words, expected in (
                (["list"], "MNIST"),
                (["show", "MNIST"], "epochs = 1  (integer, >= 1, <= 1000)"),
                (["resolve", "MNIST", "--set", "epochs=3", "--set", "no_cuda=true"], "--no-cuda"),
                (["list", "--problems"], "BROKEN_FILE"),
                (["check", str(EXAMPLES / "mnist.py")], "recipe MNIST"),
            ):
                result = runner.invoke(cli, ["recipes", *words], catch_exceptions=False)
                assert result.exit_code == 0, result.output
                assert expected in result.output

        await asyncio.to_thread(use)


def test_settings_that_are_wrong_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that is not there and a class in no form, at the start and at once."""
    absent = str(tmp_path / "absent")
    env = Environment({"TUNEFORGE_REGISTRY_RECIPES": absent, "TUNEFORGE_REGISTRY_RECIPE_CLASSES": "not a class"})
    RecipeSettings.from_env(env)
    assert len(env.problems) == 2
    good = Environment({"TUNEFORGE_REGISTRY_RECIPES": str(EXAMPLES), "TUNEFORGE_REGISTRY_RECIPE_CLASSES": "a.b:C, d:E"})
    settings = RecipeSettings.from_env(good)
    assert (settings.folder, settings.classes, good.problems) == (EXAMPLES, ("a.b:C", "d:E"), [])
