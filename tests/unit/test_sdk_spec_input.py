"""Specs as people give them."""

import json
import math
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
        "task": "is missing: set one of `supervised`, `continued_pretraining`, `preference`, `reward_model`",
        "lora.rnk": "is no field; did you mean `rank`?",
        "lora.alpha": 'is "x": use a number',
        "lora.dropout": "is true: use a number",
        "data.train.dataset": "is 5: use a string",
        "data.overlong": 'is "keep": use one of drop, truncate, refuse, split',
        "data.max_tokens": "is -1: use 8 to 131072, or 0 for the default",
        "evaluation.prompts": 'is "one": use a list',
        "optimization": "is []: use an object",
        "resources.lost_after": 'is 5: use seconds with an s, e.g. "600s"',
        "resources.node_labels": 'is {"a": 1}: use an object of strings',
        "seed": "is 1.5: use a whole number",
    }


def test_types_ranges_and_names_are_refused_in_one_answer() -> None:
    """Numbers that are not finite or do not travel get their field's range; names get their field."""
    found = problems(
        {
            **SPEC,
            "base": {"model": "Bad Name"},
            "lora": {"rank": -1, "dropout": math.nan, "target_modules": "q_proj"},
            "optimization": {"learningRate": math.nan, "epochs": math.inf, "rows_per_step": -4},
            "resources": {"lost_after": "soon s"},
            "checkpointing": {"every_steps": 2**40},
        }
    )
    assert "Bad Name" in found.pop("base.model")
    assert found == {
        "lora.rank": "is -1: use 1 or more, or 0 for the default",
        "lora.dropout": "is nan: use 0 or more and less than 1",
        "lora.target_modules": 'is "q_proj": use a list',
        "optimization.learning_rate": "is nan: use a finite number > 0, or 0 for the default",
        "optimization.epochs": "is inf: use a finite number > 0, at most 10000",
        "optimization.rows_per_step": "is -4: use 1 to 65536, or 0 for the default",
        "resources.lost_after": 'is "soon s": use seconds with an s, e.g. "600s"',
        "checkpointing.every_steps": "is 1099511627776: use a whole number from 0 to 4294967295",
    }


def test_a_field_like_no_other_is_answered_with_all_there_are() -> None:
    """Where no name is near, the valid ones are listed."""
    assert problems({**SPEC, "output": {"zzzz": 1}}) == {"output.zzzz": "is no field; there are model, merge"}


def test_two_of_a_choice_are_refused() -> None:
    """Two methods, or epochs beside steps, cannot both stand."""
    assert problems({**SPEC, "full": {}}) == {"method": "has `lora` and `full`: set one of them"}
    assert problems({**SPEC, "optimization": {"epochs": 1, "max_steps": 2}}) == {
        "optimization": "has `epochs` and `max_steps`: set one of them"
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{\n  oops", "line 2, column 3"),
        (b'{"seed', "column 2: Unterminated string\n"),
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
    assert isinstance(read_spec(SPEC, "default"), spec_pb2.TrainingSpec)


def test_amounts_may_have_units() -> None:
    """`resources.cpu` and `resources.memory` are read as people write them; what is none is listed with the rest."""
    found = read_spec({**SPEC, "resources": {"cpu": "1500m", "memory": "2Gi"}}, "default").resources
    assert (found.cpu_millis, found.memory_bytes) == (1500, 2 * 2**30)
    assert read_spec({**SPEC, "resources": {"cpu": 2, "memory": None}}, "default").resources.cpu_millis == 2000
    wrong = problems({**SPEC, "seed": -1, "resources": {"cpu": "two", "memory": ["1Gi"]}})
    assert set(wrong) == {"resources.cpu", "resources.memory", "seed"}
    assert "2000m" in wrong["resources.cpu"]
    both = problems({**SPEC, "resources": {"memory_bytes": 1, "memory": "1Gi"}})
    assert "set one of them" in both["resources.memory"]
    both = problems({**SPEC, "resources": {"memory": "1Gi", "memory_bytes": 1}})
    assert set(both) == {"resources.memory"}
