"""Specs as people give them."""

import json
from pathlib import Path

import pytest

from tuneforge._spec_input import read_spec
from tuneforge.errors import InvalidArgument
from tuneforge.specs.spec import BaseModel, DataConfig, DataSource, LoraMethod, OverlongPolicy, Resources, TrainingSpec
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import spec_pb2

SPEC = {
    "base": {"model": "smollm2@production"},
    "supervised": {},
    "lora": {"rank": 8, "targetModules": ["q_proj"]},
    "data": {"train": {"dataset": "rows"}, "validation": {"dataset": "rows/3"}, "overlong": "truncate"},
    "resources": {"lost_after": "90s", "node_labels": {"zone": "a"}},
    "output": {"model": "router"},
}


def problems(content: object) -> dict[str, str]:
    """Returns field -> description of what is refused."""
    with pytest.raises(InvalidArgument) as caught:
        read_spec(content, "default")  # type: ignore[arg-type]
    return {violation.field: violation.description for violation in caught.value.fields}


def test_a_dictionary_becomes_the_spec_with_whole_names() -> None:
    """Short names, short enum words and both spellings of a field are understood."""
    assert spec_from_proto(read_spec(SPEC, "p1")) == TrainingSpec(
        base=BaseModel(model="projects/p1/models/smollm2/aliases/production"),
        method=LoraMethod(rank=8, target_modules=("q_proj",)),
        data=DataConfig(
            train=DataSource(dataset="projects/p1/datasets/rows"),
            validation=DataSource(dataset="projects/p1/datasets/rows/versions/3"),
            overlong=OverlongPolicy.TRUNCATE,
        ),
        resources=Resources(node_labels={"zone": "a"}, lost_after_s=90.0),
        output_model="projects/p1/models/router",
    )


def test_file_dictionary_and_dataclass_give_the_same_message(tmp_path: Path) -> None:
    """The three ways to give a spec lead to one message."""
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    from_dictionary = read_spec(SPEC, "default")
    assert read_spec(tmp_path / "spec.json", "default") == from_dictionary
    assert spec_from_proto(read_spec(spec_from_proto(from_dictionary), "default")) == spec_from_proto(from_dictionary)


def test_every_wrong_field_is_listed_at_once_with_its_place() -> None:
    """Unknown fields name the nearest one, wrong types say what is taken."""
    found = problems(
        {
            "bse": {},
            "lora": {"rnk": 1, "alpha": "x", "dropout": True},
            "data": {"train": {"dataset": 5}, "overlong": "keep", "max_tokens": -1},
            "evaluation": {"prompts": "one"},
            "optimization": [],
            "resources": {"lost_after": 5, "node_labels": {"a": 1}},
            "seed": 1.5,
        }
    )
    assert found == {
        "bse": "is no field; did you mean `base`?",
        "lora.rnk": "is no field; did you mean `rank`?",
        "lora.alpha": 'is "x": give a number',
        "lora.dropout": "is true: give a number",
        "data.train.dataset": "is 5: give a string",
        "data.overlong": 'is "keep": give one of drop, truncate, refuse',
        "data.max_tokens": "is -1: give a whole number from 0 to 4294967295",
        "evaluation.prompts": 'is "one": give a list',
        "optimization": "is []: give an object",
        "resources.lost_after": 'is 5: give seconds with an s, e.g. "600s"',
        "resources.node_labels": 'is {"a": 1}: give an object of strings',
        "seed": "is 1.5: give a whole number from 0 to 18446744073709551615",
    }


def test_a_field_like_no_other_is_answered_with_all_there_are() -> None:
    """Where no name is near, the valid ones are listed."""
    assert problems({"output": {"zzzz": 1}}) == {"output.zzzz": "is no field; there are model"}


def test_two_of_a_choice_are_refused() -> None:
    """Two methods, or epochs beside steps, cannot both stand."""
    assert problems({"lora": {}, "full": {}}) == {"spec": "has `lora` and `full`: keep one of them"}
    assert problems({"optimization": {"epochs": 1, "max_steps": 2}}) == {
        "optimization": "has `epochs` and `max_steps`: keep one of them"
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{\n  oops", "line 2, column 3"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1]", "no JSON object"),
    ],
)
def test_a_file_that_is_no_spec_is_refused_with_the_place(tmp_path: Path, content: bytes, said: str) -> None:
    """A broken file is refused in one sentence with its path."""
    path = tmp_path / "spec.json"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=said) as caught:
        read_spec(path, "default")
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A path that leads nowhere is named."""
    with pytest.raises(InvalidArgument, match=r"absent.json.*No such file"):
        read_spec(tmp_path / "absent.json", "default")


def test_numbers_that_no_message_can_carry_are_refused_by_field() -> None:
    """A negative rank in a dataclass names the field, not the library's complaint alone."""
    with pytest.raises(InvalidArgument) as caught:
        read_spec(TrainingSpec(method=LoraMethod(rank=-1)), "default")
    assert "lora.rank" in {violation.field for violation in caught.value.fields}


def test_a_malformed_name_is_refused() -> None:
    """Names are checked before anything is sent."""
    with pytest.raises(InvalidArgument, match="Bad Name"):
        read_spec({"base": {"model": "Bad Name"}}, "default")


def test_the_message_is_the_generated_class() -> None:
    """What is returned can be put into a request."""
    assert isinstance(read_spec({}, "default"), spec_pb2.TrainingSpec)
