"""Rules for the files of a model: the allow-list, the configuration, the shards."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from services.grpckit.errors import Reason, ServiceError
from services.registry.folder import Folder
from services.registry.models import files
from services.registry.models.examining import refused
from services.registry.models.problems import Problems
from services.registry.models.shapes import Architecture, Tensor
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge.report_page import report_page


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Gives the folder of a tiny model."""
    return make_tiny_model(tmp_path / "tiny")


def folder_of(path: Path) -> Folder:
    """Returns all files below a path."""
    return Folder({str(each.relative_to(path)): each for each in path.rglob("*") if each.is_file()})


def examine_model(folder: Folder) -> Architecture:
    """Examines a whole model as the examiner's process does, and refuses as the registry does."""
    problems = Problems()
    architecture = files.examine_model(folder, problems)
    if problems.found:
        raise refused(problems.found)
    return architecture


def examine_adapter(folder: Folder) -> list[Tensor]:
    """Examines an adapter in the same way and returns its tensors."""
    problems = Problems()
    _, tensors = files.examine_adapter(folder, problems)
    if problems.found:
        raise refused(problems.found)
    return tensors


def problems_of(path: Path) -> dict[str, str]:
    """Returns file -> problem of a folder that must be refused as a model."""
    with pytest.raises(ServiceError) as caught:
        examine_model(folder_of(path))
    assert caught.value.reason is Reason.INVALID_MODEL
    return {violation.field: violation.description for violation in caught.value.fields}


def change_config(path: Path, **values: object) -> None:
    """Overwrites entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def shard(model: Path) -> None:
    """Splits a model's weights into two shards with an index."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(weights)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:5], names[5:]), start=1):
        path = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, model / path)
        weight_map |= dict.fromkeys(part, path)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_model_is_read(model: Path) -> None:
    """Class, configuration and every weight by name."""
    architecture = examine_model(folder_of(model))
    assert architecture.class_name == "LlamaForCausalLM"
    assert architecture.config_json == (model / "config.json").read_text()
    names = [tensor.name for tensor in architecture.tensors]
    assert names == sorted(names)
    assert "model.embed_tokens.weight" in names


def test_shards_are_one_model(model: Path) -> None:
    """Sharded weights give the same architecture as one file."""
    whole = examine_model(folder_of(model))
    shard(model)
    assert examine_model(folder_of(model)) == whole


def test_shards_must_be_those_of_the_index(model: Path) -> None:
    """A shard that is missing, one too many, and tensors that the index puts elsewhere are told by file."""
    shard(model)
    (model / "model-00002-of-00002.safetensors").unlink()
    save_file({"x": np.zeros(1, np.float32)}, model / "consolidated.safetensors")
    index = model / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["ghost.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    problems = problems_of(model)
    assert sorted(problems) == [
        "consolidated.safetensors",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert "'ghost.weight'" in problems["model-00001-of-00002.safetensors"]


def test_a_tensor_stands_in_one_shard(model: Path) -> None:
    """The same tensor in two shards is refused: which one counts would be up to the loader."""
    shard(model)
    first, second = sorted(model.glob("model-*.safetensors"))
    save_file(load_file(second) | dict([load_file(first).popitem()]), second)
    assert "which another shard has too" in problems_of(model)[second.name]


@pytest.mark.parametrize(
    "name",
    ["a.bin", "a.pt", "a.pth", "a.PKL", "a.pickle", "a.ckpt", "a.h5", "a.msgpack", "a.npz", "a.py", "a.so", "a.sh"],
)
def test_formats_that_can_run_code_are_refused(model: Path, name: str) -> None:
    """Whatever its case and place, such a file is refused with the reason."""
    (model / "nested").mkdir()
    (model / "nested" / name).write_bytes(b"x")
    assert "can run code when loaded" in problems_of(model)[f"nested/{name}"]


@pytest.mark.parametrize("name", ["a", "a.exe.zip", "model.onnx", "model.gguf", "Makefile", "picture.png"])
def test_unknown_files_are_refused(model: Path, name: str) -> None:
    """What is not known to be harmless is to be left out."""
    (model / name).write_bytes(b"x")
    assert "Leave it out" in problems_of(model)[name]


@pytest.mark.parametrize("name", ["README.md", "LICENSE", ".gitattributes", "chat_template.jinja", "merges.txt"])
def test_usual_companions_are_taken(model: Path, name: str) -> None:
    """Text that comes with every model does no harm."""
    (model / name).write_text("x")
    examine_model(folder_of(model))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"architectures": ["LlamaForCausalLM", "X"]}, "exactly one class"),
        ({"architectures": None}, "exactly one class"),
        ({"architectures": "LlamaForCausalLM"}, "exactly one class"),
        ({"architectures": ["MambaForCausalLM"]}, "not supported"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "code is never run"),
        ({"quantization_config": {"quant_method": "gptq"}}, "unquantised"),
    ],
)
def test_configurations_are_checked(model: Path, values: dict[str, object], sentence: str) -> None:
    """Unsupported classes, remote code and quantised weights are refused by `config.json`."""
    change_config(model / "config.json", **values)
    assert sentence in problems_of(model)["config.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{" * 100_000, b" " * (1024 * 1024 + 1)])
def test_a_configuration_must_be_a_small_json_object(model: Path, content: bytes) -> None:
    """Anything else is one problem of that file."""
    (model / "config.json").write_bytes(content)
    assert list(problems_of(model)) == ["config.json"]


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    """An empty folder lacks configuration, tokenizer and weights."""
    assert sorted(problems_of(tmp_path)) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_an_adapter_is_read(tmp_path: Path) -> None:
    """The adapter's own tensors are those of its file."""
    tensors = examine_adapter(folder_of(make_tiny_adapter(tmp_path / "adapter", rank=4)))
    assert len(tensors) == 8
    assert {tensor.shape[0] for tensor in tensors if "lora_A" in tensor.name} == {4}


def test_an_adapter_is_checked(tmp_path: Path) -> None:
    """Another kind of adapter, foreign weights, code and missing files are refused at once."""
    adapter = make_tiny_adapter(tmp_path / "adapter")
    change_config(adapter / "adapter_config.json", peft_type="PREFIX_TUNING", auto_map={"a": "b"})
    (adapter / "adapter_model.safetensors").rename(adapter / "model.safetensors")
    (adapter / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ServiceError) as caught:
        examine_adapter(folder_of(adapter))
    assert sorted(violation.field for violation in caught.value.fields) == [
        "adapter_config.json",
        "adapter_config.json",
        "adapter_model.bin",
        "adapter_model.safetensors",
        "model.safetensors",
    ]


def test_a_model_has_no_more_tensors_than_an_answer_carries(tmp_path: Path) -> None:
    """A file that would make every later answer undeliverable is refused."""
    model = make_tiny_model(tmp_path / "tiny")
    save_file({f"t{number}": np.zeros(0, np.float32) for number in range(20_001)}, model / "model.safetensors")
    assert "has 20001 tensors" in problems_of(model)["model.safetensors"].lower()


def test_a_merged_model_carries_its_adapter(model: Path) -> None:
    """001-12: beside whole weights, the adapter in a folder of its own; its numbers are looked at too."""
    make_tiny_adapter(model / "adapters")
    examine_model(folder_of(model))
    path = model / "adapters" / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values()))[0, 0] = np.nan
    save_file(weights, path, metadata={"format": "pt"})
    assert set(problems_of(model)) == {"adapters/adapter_model.safetensors"}


def test_a_report_is_taken_and_no_other_page(model: Path) -> None:
    """HTML comes in only as a report, in its place, that forbids a browser to run anything."""
    report = model / "report.html"
    report.write_text(report_page("Run", []))
    examine_model(folder_of(model))
    (model / "other.html").write_text(report.read_text())
    report.write_text("<html><script>alert(1)</script></html>")
    assert set(problems_of(model)) == {"other.html", "report.html"}
