"""Reference cases of typed templates: 000-01 to 000-30 and 000-33 to 000-40."""

import ast
import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, cast

import pytest

from examples.recipes.mnist import MNIST
from services.registry.recipes.settings import RecipeSettings
from tests.support.event_loop import on_loop
from tests.support.registry import fields_of, refused, running_registry
from tuneforge.errors import Reason
from tuneforge.recipes import (
    Parameter,
    Recipe,
    RecipeBook,
    RecipeDescription,
    RecipeError,
    TrainingArguments,
    TrainingDataset,
    TrainingFramework,
    TrainingResources,
    TrainingTask,
)
from tuneforge.recipes.description import object_name
from tuneforge.recipes.values import amount
from tuneforge.v1 import recipes_pb2

ROOT = Path(__file__).parents[3]


class MyModelConfig(TrainingArguments):
    """The argument class of the page."""

    batch_size: int = Parameter(32, description="Rows in a step.")
    learning_rate: float = 0.001
    epochs: int = 10


class MyCustomModel(Recipe):
    """The complete template of the page."""

    name = "MyCustomModel"
    inference_name = "MyCustomModel"
    description = "free text"
    project_url = "https://github.com/your-org/your-model"
    image = "your-registry/your-model:latest"
    command = ["/bin/bash", "-c", "python train.py"]  # noqa: RUF012
    framework = TrainingFramework.PYTORCH
    task = TrainingTask.CLASSIFICATION
    dataset_info = TrainingDataset(description="CSV with columns image_path, label", dataset_required=True)
    resources = TrainingResources(requests={"cpu": 2, "memory": "4Gi"}, limits={"cpu": 4, "memory": "8Gi"})
    accelerator_count: int = Parameter(1, ge=0)
    promotion_path: str = Parameter("domain/algorithm_name/application")
    training_arguments: MyModelConfig = MyModelConfig()


MINE = RecipeDescription.of(MyCustomModel())
END = "--dataset_path=/data/dataset --checkpoint_path=/data/artifacts"


def case(*ids: str) -> pytest.MarkDecorator:
    """Gives a test the ids of its cases."""
    return pytest.mark.parametrize("case_id", ids, ids=ids)


def recipe_class(**fields: Any) -> type[Recipe]:
    """Returns a recipe class with these fields."""
    return cast("type[Recipe]", type("Made", (Recipe,), fields))


def named(error: RecipeError) -> dict[str, str]:
    """Returns field -> what is wrong."""
    return {problem.field: problem.description for problem in error.problems}


def problems_with(**fields: Any) -> dict[str, str]:
    """Returns what is wrong with the complete template when some fields are others."""
    try:
        MyCustomModel(**fields)
    except RecipeError as error:
        return named(error)
    return {}


@case("000-01")
def test_parameters_have_type_default_and_description(case_id: str) -> None:
    """All defaults are there without a word, and the schema says what each parameter is."""
    assert MINE.defaults == {"batch_size": 32, "learning_rate": 0.001, "epochs": 10}
    assert MINE.schema["properties"]["batch_size"] == {
        "type": "integer",
        "default": 32,
        "description": "Rows in a step.",
    }
    assert MINE.resolve({}, dataset="rows.csv").arguments == MINE.defaults
    with pytest.raises(RecipeError) as error:
        MINE.resolve({"epoch": 3}, dataset="rows.csv")
    assert "'epochs'" in named(error.value)["training_arguments.epoch"]


@case("000-02")
def test_command_of_the_defaults(case_id: str) -> None:
    """Arguments are appended to the last entry; the recipe's own list stays as it was."""
    expected = f"python train.py --batch-size=32 --learning-rate=0.001 --epochs=10 {END}"
    assert MINE.resolve({}, dataset="x").command == ("/bin/bash", "-c", expected)
    assert MyCustomModel.command == ["/bin/bash", "-c", "python train.py"]


@case("000-03")
def test_command_of_two_changed_arguments(case_id: str) -> None:
    """A partial set merges over the defaults."""
    resolved = MINE.resolve({"epochs": 3, "learning_rate": 0.0005}, dataset="x")
    assert resolved.command[2] == f"python train.py --batch-size=32 --learning-rate=0.0005 --epochs=3 {END}"


@case("000-04")
def test_wrong_types_are_listed_together(case_id: str) -> None:
    """One answer has both."""
    with pytest.raises(RecipeError) as error:
        MINE.resolve({"epochs": "ten", "batch_size": 1.5}, dataset="x")
    found = named(error.value)
    assert set(found) == {"training_arguments.epochs", "training_arguments.batch_size"}
    assert all("not an integer" in text for text in found.values())


@case("000-05", "000-13")
def test_a_required_data_set_is_required(case_id: str) -> None:
    """Without one the run is refused, in words that say what it must contain."""
    with pytest.raises(RecipeError) as error:
        MINE.resolve({})
    assert "requires a data set: CSV with columns image_path, label" in named(error.value)["dataset"]


SOURCE = """
from tuneforge.recipes import Recipe, TrainingArguments

class Config(TrainingArguments):
    epochs: int = 1

class {cls}(Recipe):
    name = "{name}"
    image = "registry.example.com/x:1"
    command = ["/bin/sh", "-c", "run"]
    framework = "{framework}"
    task = "classification"
    training_arguments = Config
    inference_name = {inference}
"""


def source(cls: str, name: str, *, framework: str = "pytorch", inference: str | None = None) -> str:
    """Returns a file with one recipe."""
    return SOURCE.format(cls=cls, name=name, framework=framework, inference=repr(inference))


@case("000-06", "000-08", "000-09", "000-38", "000-39")
def test_what_is_found_in_a_folder(case_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files that begin with `__` are not read; the key is the name field; duplicates and broken files are told."""
    caplog.set_level(logging.DEBUG, logger="tuneforge.recipes")
    book = RecipeBook()
    book.discover(tmp_path)
    assert not book.recipes
    assert not book.problems
    (tmp_path / "__init__.py").write_text("raise SystemExit")
    (tmp_path / ".gitkeep").write_text("")
    (tmp_path / "a_model.py").write_text(source("A", "MyCustomModel"))
    (tmp_path / "b_model.py").write_text(source("B", "MyCustomModel"))
    (tmp_path / "good.py").write_text(source("Good", "GoodModel"))
    (tmp_path / "import_error.py").write_text("import absent_module_of_nobody")
    (tmp_path / "no_base.py").write_text("class NoBase:\n    name = 'NoBase'\n")
    (tmp_path / "wrong.py").write_text(source("Wrong", "Wrong", framework="jax"))
    book.discover(tmp_path)
    assert list(book.recipes) == ["MyCustomModel", "GoodModel"]
    told = {problem.file: problem for problem in book.problems}
    assert set(told) == {"b_model.py", "import_error.py", "wrong.py"}
    assert (told["b_model.py"].code, told["b_model.py"].class_name) == ("DUPLICATE_NAME", "B")
    assert "A in a_model.py" in told["b_model.py"].message
    assert told["import_error.py"].code == "BROKEN_FILE"
    assert "absent_module_of_nobody" in told["import_error.py"].message
    for word in ("reading good.py", "found Good", "registered the recipe GoodModel", "no_base.py has no recipe"):
        assert word in caplog.text
    assert "__init__" not in caplog.text


@case("000-07")
def test_a_recipe_registered_by_hand_comes_first(case_id: str, tmp_path: Path) -> None:
    """It is as good as a found one, and discovery does not replace it."""
    (tmp_path / "mine.py").write_text(source("Other", "MyCustomModel"))
    book = RecipeBook()
    assert book.register(MyCustomModel)
    book.discover(tmp_path)
    assert book.recipes["MyCustomModel"].fields["description"] == "free text"
    assert [problem.code for problem in book.problems] == ["DUPLICATE_NAME"]


@case("000-10")
def test_missing_fields_are_named(case_id: str) -> None:
    """Each alone, and all together."""
    required = ["name", "image", "command", "framework", "task"]
    whole: dict[str, Any] = {name: getattr(MyCustomModel, name) for name in required}
    for left_out in required:
        kept = {name: value for name, value in whole.items() if name != left_out}
        recipe = recipe_class(**kept, training_arguments=MyModelConfig)
        assert [problem.field for problem in recipe.problems()] == [left_out]
    bare = recipe_class(training_arguments=MyModelConfig)
    assert [problem.field for problem in bare.problems()] == required
    assert [problem.field for problem in recipe_class().problems()] == [*required, "training_arguments"]


@case("000-11", "000-12")
def test_defaults_of_optional_fields(case_id: str) -> None:
    """As on the page, except that a CPU asks for no accelerator."""
    names = ("name", "image", "command", "framework", "task", "training_arguments")
    plain = recipe_class(**{name: getattr(MyCustomModel, name) for name in names})
    dump = plain().dump()
    assert {name: value for name, value in dump.items() if name not in names} == {
        "description": "",
        "project_url": "",
        "inference_name": None,
        "image_pull_secret": None,
        "checkpoint_mount": "/data/artifacts",
        "dataset_mount": "/data/dataset",
        "dataset_info": {"description": "", "dataset_required": False, "dataset_name": ""},
        "device_types": ["cpu"],
        "resources": {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {}},
        "accelerator_count": 1,
        "cluster_nodes": 1,
        "store_asset_patterns": ["*.json", "*.yaml", "*.csv", "*.pt", "*.ckpt"],
        "promotion_path": "",
    }
    assert RecipeDescription.of(plain()).resolve({}).accelerator_count == 0
    unknown = problems_with(dataset_info={"description": "x", "columns": ["a"]})
    assert list(unknown) == ["dataset_info.columns"]
    assert MINE.resolve({}, dataset="sets/rows.csv").dataset_name == "rows.csv"


@case("000-14", "000-15")
def test_resources(case_id: str) -> None:
    """Requests are needed, unknown keys refused, limits not below what is requested."""
    assert list(problems_with(resources={"limits": {"cpu": 1}})) == ["resources.requests"]
    assert list(problems_with(resources={"requests": {"cpu": 1}, "gpu": 1})) == ["resources.gpu"]
    assert (
        problems_with(resources={"requests": {"cpu": 4, "memory": "2Gi"}, "limits": {"cpu": 8, "memory": "4Gi"}}) == {}
    )
    below = problems_with(resources={"requests": {"cpu": 4}, "limits": {"cpu": "2000m"}})
    assert list(below) == ["resources.limits.cpu"]


@pytest.mark.parametrize(
    ("value", "cores"), [(2, 2), ("2", 2), ("2000m", 2), ("two", None), (-1, None)], ids=lambda each: f"000-16-{each}"
)
def test_amounts_of_cpu(value: object, cores: int | None) -> None:
    """Three spellings of two cores, and two of none."""
    found = problems_with(resources={"requests": {"cpu": value}})
    if cores is None:
        assert list(found) == ["resources.requests.cpu"]
        assert ("must be positive" if value == -1 else "no quantity") in found["resources.requests.cpu"]
    else:
        assert found == {}
        assert amount("cpu", value) == cores


@pytest.mark.parametrize(
    ("value", "size"),
    [("1Gi", 1_073_741_824), ("2048Mi", 2_147_483_648), ("2G", 2_000_000_000), ("1 gig", None)],
    ids=lambda each: f"000-17-{each}",
)
def test_amounts_of_memory(value: str, size: int | None) -> None:
    """Units of 1024 and of 1000 are told apart."""
    found = problems_with(resources={"requests": {"memory": value}})
    assert list(found) == ([] if size else ["resources.requests.memory"])
    if size:
        assert amount("memory", value) == size


@pytest.mark.parametrize(
    ("value", "is_right"), [(0, True), (100, True), (-1, False), (101, False)], ids=lambda each: f"000-18-{each}"
)
def test_bounds(value: int, is_right: bool) -> None:
    """Both bounds are included, and stand in the schema."""

    class Bounded(TrainingArguments):
        param_name: float = Parameter(50.0, ge=0, le=100)

    schema = Bounded.parameters[0].schema()
    assert (schema["minimum"], schema["maximum"]) == (0, 100)
    assert (Bounded.parameters[0].check(value)[1] == "") == is_right


@case("000-19")
def test_parameters_need_type_and_default(case_id: str) -> None:
    """Refused when the class is defined, both named."""
    with pytest.raises(RecipeError) as error:
        type("Wrong", (TrainingArguments,), {"__annotations__": {"a": int}, "b": 1})
    found = named(error.value)
    assert set(found) == {"a", "b"}
    assert "every argument needs one" in found["a"]
    assert "no type" in found["b"]


MNIST_DEFAULTS = {
    "batch_size": 64,
    "test_batch_size": 1000,
    "epochs": 1,
    "lr": 1.0,
    "gamma": 0.7,
    "no_cuda": False,
    "seed": 1,
    "log_interval": 10,
    "save_model": False,
}
DIGITS = "--batch-size=64 --test-batch-size=1000 --epochs={} --lr=1.0 --seed=1 --log-interval=10 --gamma=0.7 " + END


@case("000-20", "000-21", "000-22", "000-23")
def test_digits(case_id: str) -> None:
    """The built-in example: its defaults, its commands, and an object of it with a partial set of arguments."""
    description = RecipeDescription.of(MNIST())
    assert description.defaults == MNIST_DEFAULTS
    script = "python mnist_training_script.py"
    assert description.resolve({}).command == ("/bin/bash", "-c", f"{script} {DIGITS.format(1)}")
    flags = description.resolve({"no_cuda": True, "save_model": True}).command[2]
    assert flags == f"{script} --no-cuda --save-model {DIGITS.format(1)}"
    changed = MNIST(description="test model load", training_arguments={"epochs": 2})
    assert changed.dump() == MNIST().dump() | {
        "description": "test model load",
        "training_arguments": MNIST().dump()["training_arguments"] | {"epochs": 2},
    }
    assert RecipeDescription.of(changed).resolve({}).command[2] == f"{script} {DIGITS.format(2)}"


@case("000-24")
def test_no_accelerator_is_within_any_bounds(case_id: str) -> None:
    """Zero by default and zero by word are alike; below it is refused."""

    class Digits(MyCustomModel):
        name = "Digits"
        accelerator_count: int = Parameter(0, ge=1)

    assert Digits().accelerator_count == 0
    assert Digits(accelerator_count=0).dump() == Digits().dump()
    with pytest.raises(RecipeError):
        Digits(accelerator_count=-1)


@pytest.mark.parametrize(
    ("field", "value", "is_right"),
    [("accelerator_count", value, value >= 0) for value in (0, 1, 4, -1)]
    + [("cluster_nodes", value, value >= 1) for value in (1, 2, 0)],
    ids=[f"000-25-{value}" for value in (0, 1, 4, -1)] + [f"000-26-{value}" for value in (1, 2, 0)],
)
def test_counts(field: str, value: int, is_right: bool) -> None:
    """Accelerators are per worker, from none on; there is at least one worker."""
    assert list(problems_with(**{field: value})) == ([] if is_right else [field])


@pytest.mark.parametrize(
    ("value", "is_right"),
    [("MNIST", True), ("MyCustomModel", True), ("a.b_c@1", True)]
    + [(value, False) for value in ("MNI", "my model", "my-model", "")],
    ids=lambda each: f"000-27-{each}",
)
def test_names(value: str, is_right: bool) -> None:
    """Four characters at least, of a small set; a legal name for a cluster is derived."""
    assert list(problems_with(name=value)) == ([] if is_right else ["name"])
    if is_right:
        assert set(object_name(value)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("field", "value", "is_right"),
    [("framework", word, word != "jax") for word in ("PYTORCH", "TENSORFLOW", "pytorch", "tensorflow", "jax")]
    + [
        ("task", word, word != "ranking")
        for word in ("CLASSIFICATION", "REGRESSION", "MULTITASK_CLASSIFICATION", "multitask_classification", "ranking")
    ],
    ids=lambda each: f"000-28-29-{each}" if isinstance(each, str) else "",
)
def test_words(field: str, value: str, is_right: bool) -> None:
    """Upper and lower case are taken; a wrong one is told which there are."""
    found = problems_with(**{field: value})
    assert list(found) == ([] if is_right else [field])
    assert is_right or "pytorch" in found[field] or "regression" in found[field]


@case("000-30")
def test_mounts(case_id: str) -> None:
    """Both flags are always there, and follow the mounts."""
    moved = MyCustomModel(dataset_mount="/mnt/in", checkpoint_mount="/mnt/out")
    description = RecipeDescription.of(moved)
    command = description.resolve({}, dataset="x").command[2]
    assert command.endswith("--dataset_path=/mnt/in --checkpoint_path=/mnt/out")
    assert (description.fields["dataset_mount"], description.fields["checkpoint_mount"]) == ("/mnt/in", "/mnt/out")


@case("000-33", "000-35", "000-36")
@on_loop
async def test_what_the_service_shows(case_id: str, tmp_path: Path) -> None:
    """Several recipes behind one service name, secrets by name only, a warning for a tag that can move."""
    (tmp_path / "a.py").write_text(source("A", "MNIST", inference="Digits"))
    second = source("B", "MyCustomModel", inference="Digits").replace("x:1", "x:latest")
    (tmp_path / "b.py").write_text(second + "    image_pull_secret = 'my-registry-secret'\n")
    (tmp_path / "c.py").write_text(source("C", "Third") + "    image_pull_secret = 'dXNlcjpwYXNz=='\n")
    async with running_registry(tmp_path / "data", recipes=RecipeSettings(folder=tmp_path)) as registry:
        listed = await registry.stub.ListRecipes(recipes_pb2.ListRecipesRequest())
        assert [(each.name, each.inference_name) for each in listed.recipes] == [
            ("recipes/MNIST", "Digits"),
            ("recipes/MyCustomModel", "Digits"),
        ]
        assert [each.image_pull_secret for each in listed.recipes] == ["", "my-registry-secret"]
        assert [bool(each.warnings) for each in listed.recipes] == [False, True]
        assert [(each.file, each.code) for each in listed.problems] == [("c.py", "INVALID_RECIPE")]
        assert "dXNlcjpwYXNz" not in str(listed)


@case("000-34")
@on_loop
async def test_a_device_that_is_not_the_recipes(case_id: str, tmp_path: Path) -> None:
    """Refused together with wrong arguments, over the service."""
    (tmp_path / "a.py").write_text(source("A", "MNIST"))
    async with running_registry(tmp_path / "data", recipes=RecipeSettings(folder=tmp_path)) as registry:
        request = recipes_pb2.ResolveRecipeRequest(
            name="recipes/MNIST", device="gpu", arguments_json=json.dumps({"epoch": 1})
        )
        error = await refused(registry.stub.ResolveRecipe(request), Reason.INVALID_FIELD)
        assert fields_of(error) == ["training_arguments.epoch", "device"]
        request = recipes_pb2.ResolveRecipeRequest(name="recipes/MNIST")
        assert (await registry.stub.ResolveRecipe(request)).resources.accelerator_count == 0


@case("000-37")
def test_self_test_of_a_file(case_id: str, tmp_path: Path) -> None:
    """A good file prints every field, the command and the schema; a broken one ends with 1 and names the field."""
    good, wrong = tmp_path / "good.py", tmp_path / "wrong.py"
    good.write_text(source("Good", "GoodModel"))
    wrong.write_text(source("Wrong", "Wrong", framework="jax"))

    def check(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tuneforge.recipes", str(path)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)

    told = check(good)
    assert told.returncode == 0, told.stderr
    for word in ("recipe GoodModel", 'framework: "pytorch"', "--epochs=1 --dataset_path", '"additionalProperties"'):
        assert word in told.stdout
    told = check(wrong)
    assert told.returncode == 1
    assert "framework is 'jax'" in told.stderr


@case("000-40")
def test_a_field_of_another_type_is_refused_at_definition(case_id: str) -> None:
    """A TypeError that names the field, the class and both types; a narrower type is fine."""
    text = textwrap.dedent("""
        class Mine(MyCustomModel):
            accelerator_count: str = "1"
            device_types: list[int] = [1]
            training_arguments: MyModelConfig = MyModelConfig()
    """)
    ast.parse(text)
    with pytest.raises(TypeError) as error:
        exec(text, dict(globals()))
    assert isinstance(error.value, RecipeError)
    assert set(named(error.value)) == {"accelerator_count", "device_types"}
    for word in ("Mine", "str", "int", "list[str]"):
        assert word in str(error.value)
