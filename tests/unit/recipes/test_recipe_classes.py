"""How recipes are written: types, defaults, limits, and errors that name everything at once."""

import json
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneforge.recipes import (
    Parameter,
    Recipe,
    RecipeBook,
    RecipeDescription,
    RecipeError,
    TrainingArguments,
    TrainingFramework,
    TrainingTask,
)
from tuneforge.recipes.description import object_name, parse_arguments


class Colour(Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Arguments(TrainingArguments):
    """One argument of each type."""

    epochs: int = Parameter(1, ge=1, le=10)
    rate: float = Parameter(0.1, gt=0, lt=1)
    is_fast: bool = False
    title: str = Parameter("plain", pattern="[a-z' ;$()]*", max_length=40)
    colour: Colour = Colour.RED
    size: Literal[1, 2, 4] = 2
    layers: list[int] = Parameter([1, 2], min_length=1)
    note: str | None = None


class Small(Recipe):
    """A recipe of the tests."""

    name = "Small"
    image = "registry.example.com/small:1.0"
    command = ["/bin/sh", "-c", "run"]  # noqa: RUF012
    framework = TrainingFramework.PYTORCH
    task = TrainingTask.REGRESSION
    training_arguments = Arguments()


def fields(error: pytest.ExceptionInfo[RecipeError]) -> list[str]:
    """Returns the fields that an error names."""
    return [problem.field for problem in error.value.problems]


def test_every_type_has_a_schema() -> None:
    """The schema says type, limits, choices and default of each argument, and takes no other."""
    schema = RecipeDescription.of(Small()).schema
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "epochs": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "rate": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.1},
        "is_fast": {"type": "boolean", "default": False},
        "title": {"type": "string", "maxLength": 40, "pattern": "^(?:[a-z' ;$()]*)$", "default": "plain"},
        "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "size": {"type": "integer", "enum": [1, 2, 4], "default": 2},
        "layers": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "default": [1, 2]},
        "note": {"type": ["string", "null"], "default": None},
    }


def test_all_wrong_arguments_are_told_together() -> None:
    """Each with what is wrong and what it may be; an unknown one with the nearest name."""
    wrong = {
        "epochs": 11,
        "rate": float("nan"),
        "is_fast": "yes",
        "title": "Ü",
        "colour": "green",
        "size": 3,
        "layers": [1, "two"],
        "epoch": 1,
    }
    with pytest.raises(RecipeError) as error:
        Small(training_arguments=wrong)
    assert fields(error) == [f"training_arguments.{name}" for name in wrong]
    assert "did you mean 'epochs'" in str(error.value)
    assert "at most 10" in str(error.value)


def test_text_arguments_cannot_leave_their_flag() -> None:
    """The command's last entry is read by a shell: what a user gives stays one word."""
    description = RecipeDescription.of(Small())
    command = description.resolve({"title": "'; rm $(ls) ;'", "layers": [3]}).command
    assert command[:2] == ("/bin/sh", "-c")
    assert """--title=''"'"'; rm $(ls) ;'"'"''""" in command[2]
    assert "--layers=3" in command[2]
    assert "--note" not in command[2]


@given(
    st.dictionaries(
        st.sampled_from(["epochs", "rate", "is_fast", "title", "colour", "size", "layers", "note", "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.lists(st.integers()),
    )
)
def test_any_arguments_are_resolved_or_refused_by_name(arguments: dict[str, Any]) -> None:
    """Whatever is given: a complete set of arguments that is stable when given again, or the names of wrong ones."""
    description = RecipeDescription.of(Small())
    try:
        resolved = description.resolve(arguments)
    except RecipeError as error:
        wrong = {problem.field.partition(".")[2] for problem in error.problems}
    else:
        wrong = set()
    assert wrong <= set(arguments)
    if wrong:
        return
    assert set(resolved.arguments) == set(description.defaults)
    assert description.resolve(dict(resolved.arguments)) == resolved
    json.dumps(dict(resolved.arguments), allow_nan=False)


def test_a_description_survives_its_json() -> None:
    """What a child process sends is what the service has."""
    description = RecipeDescription.of(Small())
    again = RecipeDescription.from_json(description.to_json())
    assert again.schema == description.schema
    assert again.resolve({"epochs": 3}) == description.resolve({"epochs": 3})


def test_misspelled_fields_are_found() -> None:
    """A class attribute or a given field that no recipe has is told with the nearest."""

    class Misspelled(Small):
        name = "Misspelled"
        acelerator_count = 2

    assert "did you mean 'accelerator_count'" in Misspelled.problems()[0].description
    with pytest.raises(RecipeError) as error:
        Small(descripton="x")
    assert fields(error) == ["descripton"]


def test_defaults_outside_their_limits_and_foreign_types_are_refused_at_definition() -> None:
    """Whoever writes the file sees it, not who runs a job."""
    with pytest.raises(RecipeError) as error:

        class Wrong(TrainingArguments):
            low: int = Parameter(0, ge=1)
            thing: dict[str, int] = {}  # noqa: RUF012
            pattern: str = Parameter("x", pattern="[")

    assert fields(error) == ["low", "thing", "pattern"]


def test_inherited_arguments_are_kept_and_replaced() -> None:
    """A subclass has what its base declares, with its own word last."""

    class More(Arguments):
        epochs: int = 5
        extra: int = 1

    assert More.parameters[0].name == "epochs"
    assert More().values["epochs"] == 5
    assert More().values["extra"] == 1


def test_a_method_that_would_not_run_is_warned_of() -> None:
    """A template moved here from elsewhere may bring its own command builder."""

    class Moved(Small):
        name = "Moved"

        def run_cmd(self) -> list[str]:
            """Is not called."""
            return []

    assert "run_cmd" in RecipeDescription.of(Moved()).warnings[0]


def test_a_base_for_recipes_is_none_itself() -> None:
    """It is not registered, and its fields need not be complete."""

    class Shared(Recipe, abstract=True):
        image = "registry.example.com/shared:1.0"

    with pytest.raises(RecipeError):
        Shared()
    book = RecipeBook()
    assert book.register(Small)
    assert list(book.recipes) == ["Small"]


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000])
def test_arguments_that_are_no_json_object_are_refused(text: str) -> None:
    """With a reason, and without a fault."""
    with pytest.raises(RecipeError):
        parse_arguments(text)


@given(st.text(alphabet="abcXYZ019._@", min_size=4, max_size=80))
def test_every_name_has_a_legal_object_name(name: str) -> None:
    """Lower case, digits and dashes, at most 50 characters; plain names stay as they are."""
    found = object_name(name)
    assert 0 < len(found) <= 50
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert found[0] != "-"
    assert found[-1] != "-"


def test_different_names_have_different_object_names() -> None:
    """Also when they differ in what is not legal only."""
    names = ["my.model", "my_model", "My.Model", "my@model", "mymodel"]
    assert len({object_name(name) for name in names}) == len(names)
    assert object_name("mymodel") == "mymodel"
