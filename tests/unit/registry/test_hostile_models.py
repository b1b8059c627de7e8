"""Files of models that mean harm, through the examiner's own process: each is refused by its rule, none does anything.

Ids are those of the hostile inputs in the security notes (B59 to B68).
"""

import io
import json
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.parent import END_WITH_PARENT
from services.registry.folder import Folder
from services.registry.models.examining import examine_adapter, examine_model
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.canary,)


def folder_of(path: Path) -> Folder:
    """Returns all files below a path."""
    return Folder({str(each.relative_to(path)): each for each in path.rglob("*") if each.is_file()})


def refused(path: Path) -> ServiceError:
    """Returns the error with which a folder is refused as a model."""
    with pytest.raises(ServiceError) as caught:
        examine_model(folder_of(path))
    assert caught.value.reason is Reason.INVALID_MODEL
    return caught.value


def codes(error: ServiceError) -> set[str]:
    """Returns the rules that an error names."""
    return set(error.metadata["codes"].split(","))


def change_json(path: Path, **values: object) -> None:
    """Overwrites entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def header(entries: Mapping[str, object], data: bytes = b"") -> bytes:
    """Returns a safetensors file with a header as given."""
    raw = json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    """Returns the header's entry of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("name", ["pytorch_model.bin", WEIGHTS], ids=["B59-pickle", "B59-renamed"])
def test_a_pickle_runs_nothing(tmp_path: Path, name: str) -> None:
    """Under its own name or another one, a pickle is refused and its payload does not run."""
    canary, model = tmp_path / "canary", make_tiny_model(tmp_path / "tiny")
    (model / name).write_bytes(pickle.dumps(Touch(canary)))
    assert codes(refused(model)) & {"FORMAT_NOT_ALLOWED", "CORRUPT_SAFETENSORS"}
    assert not canary.exists()


def test_a_zip_that_is_safetensors_too_is_refused(tmp_path: Path) -> None:
    """B59: bytes appended after the tensors, such as an archive, are a fault of the file."""
    model = make_tiny_model(tmp_path / "tiny")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", b"x")
    with (model / WEIGHTS).open("ab") as file:
        file.write(archive.getvalue())
    assert codes(refused(model)) == {"CORRUPT_SAFETENSORS"}


LIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "CORRUPT_SAFETENSORS"),
    "short": (b"1234", "CORRUPT_SAFETENSORS"),
    "length-2^62": (struct.pack("<Q", 2**62) + b"{}", "CORRUPT_SAFETENSORS"),
    "not-json": (struct.pack("<Q", 4) + b"nope", "CORRUPT_SAFETENSORS"),
    "truncated": (header({"x": entry([4], 0, 16)}, b"\0" * 8), "CORRUPT_SAFETENSORS"),
    "overlap": (header({"x": entry([4], 0, 16), "y": entry([4], 8, 24)}, b"\0" * 24), "CORRUPT_SAFETENSORS"),
    "hole": (header({"x": entry([1], 0, 4), "y": entry([1], 8, 12)}, b"\0" * 12), "CORRUPT_SAFETENSORS"),
    "extra-bytes": (header({"x": entry([1], 0, 4)}, b"\0" * 8), "CORRUPT_SAFETENSORS"),
    "shape-mismatch": (header({"x": entry([2], 0, 4)}, b"\0" * 4), "CORRUPT_SAFETENSORS"),
    "shape-overflow": (header({"x": entry([2**40, 2**40], 0, 4)}, b"\0" * 4), "CORRUPT_SAFETENSORS"),
    "negative-side": (header({"x": entry([-1], 0, 4)}, b"\0" * 4), "CORRUPT_SAFETENSORS"),
    "bad-dtype": (header({"x": entry([1], 0, 4, "PICKLE")}, b"\0" * 4), "CORRUPT_SAFETENSORS"),
    "B62-100000-tensors": (header({f"t{n:06}": entry([0], 0, 0) for n in range(120_000)}), "HEADER_TOO_LARGE"),
    "B62-10MB-metadata": (header({"__metadata__": {"a": "x" * 10_000_000}}), "HEADER_TOO_LARGE"),
    "B62-2MB-metadata": (header({"__metadata__": {"a": "x" * 2_000_000}}), "HEADER_TOO_LARGE"),
}


@pytest.mark.parametrize("name", LIES, ids=[name if name[0] == "B" else f"B60-{name}" for name in LIES])
def test_headers_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    """Each kind of lie is told with the file's name, and nothing is read by it."""
    model = make_tiny_model(tmp_path / "tiny")
    content, code = LIES[name]
    (model / WEIGHTS).write_bytes(content)
    error = refused(model)
    assert code in codes(error)
    assert {violation.field for violation in error.fields} == {WEIGHTS}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["B61-nan", "B61-inf", "B61-minus-inf"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, dtype: str, value: float) -> None:
    """One such number in any format is found and told with tensor and place; the largest finite ones are not."""
    model = make_tiny_model(tmp_path / "tiny")
    weights = load_file(model / WEIGHTS)
    name = "model.layers.1.mlp.up_proj.weight"
    raw = {}
    for key, tensor in weights.items():
        flat = tensor.astype(np.float32)
        if key == name:
            largest = {"float32": 3.4e38, "float16": 65504.0, "bfloat16": 3.38e38}[dtype]
            flat[0, 0], flat[1, 1] = largest, -largest
            flat[127, 5] = value
        raw[key] = encoded(flat, dtype)
    write_raw(model / WEIGHTS, raw, {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype])
    error = refused(model)
    assert codes(error) == {"NON_FINITE_WEIGHTS"}
    assert f"{name!r} whose number {127 * 64 + 5} " in error.fields[0].description


def encoded(values: np.ndarray, dtype: str) -> tuple[tuple[int, ...], bytes]:
    """Returns shape and little-endian bytes of numbers in a format."""
    if dtype == "bfloat16":
        return values.shape, (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.shape, values.astype({"float32": "<f4", "float16": "<f2"}[dtype]).tobytes()


def write_raw(path: Path, tensors: dict[str, tuple[tuple[int, ...], bytes]], dtype: str) -> None:
    """Writes a safetensors file of tensors given as bytes."""
    entries, data = {}, b""
    for name, (shape, content) in tensors.items():
        entries[name] = entry(list(shape), len(data), len(data) + len(content), dtype)
        data += content
    path.write_bytes(header(entries, data))


def test_large_weights_are_scanned_in_bounded_memory(tmp_path: Path) -> None:
    """Half a gigabyte of weights is looked at by a process that never holds a tenth of it."""
    model = make_tiny_model(tmp_path / "tiny")
    sides = 2**29 // 4
    with (model / WEIGHTS).open("wb") as file:
        file.write(header({"x": entry([sides], 0, 2**29)}))
        file.truncate(file.tell() + 2**29)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    error = refused(model)
    assert codes(error) == {"SHAPE_MISMATCH"}  # the numbers are finite; there is no such tensor
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib == before or peak_kib < 100 * 1024


def test_shards_of_another_model_are_refused(tmp_path: Path) -> None:
    """B63: an index that names a file outside, one that is missing, and a shard of another model."""
    model = make_tiny_model(tmp_path / "tiny")
    weights = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    save_file(weights, model / "a.safetensors")
    weight_map = dict.fromkeys(weights, "a.safetensors") | {"x": "../outside.safetensors", "y": "b.safetensors"}
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    error = refused(model)
    assert codes(error) == {"MISSING_SHARD"}
    assert sorted(violation.field for violation in error.fields) == ["../outside.safetensors", "b.safetensors"]
    other = make_tiny_model(tmp_path / "other", layers=3)
    (model / "a.safetensors").write_bytes((other / WEIGHTS).read_bytes())
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(weights, "a.safetensors")}))
    assert "layers.2" in " ".join(violation.description for violation in refused(model).fields)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"hidden_size": 32, "num_attention_heads": 2}, "shape"),
        ({"num_hidden_layers": 3}, "Lacks the tensor"),
        ({"num_hidden_layers": 1}, "does not have"),
        ({"vocab_size": 200}, "vocab_size of 200"),
    ],
    ids=["B64-width", "B64-missing", "B64-too-many", "B64-vocabulary"],
)
def test_weights_and_tokenizer_must_be_those_of_the_configuration(
    tmp_path: Path, values: dict[str, object], word: str
) -> None:
    """What does not belong together is refused, with the tensor or the token."""
    model = make_tiny_model(tmp_path / "tiny")
    change_json(model / CONFIG, **values)
    error = refused(model)
    assert codes(error) == {"SHAPE_MISMATCH"}
    assert any(word in violation.description for violation in error.fields)


def test_weights_in_integers_are_refused(tmp_path: Path) -> None:
    """B64: a format that no weight has."""
    model = make_tiny_model(tmp_path / "tiny")
    save_file({name: tensor.astype(np.int32) for name, tensor in load_file(model / WEIGHTS).items()}, model / WEIGHTS)
    error = refused(model)
    assert codes(error) == {"SHAPE_MISMATCH"}
    assert "in the format I32" in error.fields[0].description


@pytest.mark.parametrize(
    ("file", "values"),
    [
        (CONFIG, {"auto_map": {"AutoModel": "x.Y"}}),
        (CONFIG, {"text_config": {"deep": [{"trust_remote_code": True}]}}),
        (CONFIG, {"custom_pipelines": {"x": {"impl": "y.Z"}}}),
        (CONFIG, {"architectures": ["EvilForCausalLM"]}),
        (CONFIG, {"num_hidden_layers": 10**9}),
        (CONFIG, {"num_hidden_layers": True}),
        (CONFIG, {"hidden_size": -64}),
        (CONFIG, {"vocab_size": "273"}),
        (CONFIG, {"num_attention_heads": 3}),
        (CONFIG, {"intermediate_size": None}),
        (CONFIG, {"dtype": "float4_from_hell"}),
        ("generation_config.json", {"nested": {"auto_map": {"a": "b"}}}),
    ],
    ids=lambda value: f"B66-{next(iter(value))}" if isinstance(value, dict) else None,
)
def test_configurations_that_are_not_allowed(tmp_path: Path, file: str, values: dict[str, object]) -> None:
    """Code at any depth, unknown classes, absurd numbers: refused before any library sees the file, and quickly."""
    model = make_tiny_model(tmp_path / "tiny")
    change_json(model / file, **values)
    error = refused(model)
    assert "CONFIG_NOT_ALLOWED" in codes(error)
    assert file in {violation.field for violation in error.fields}


def test_modules_of_an_embedding_model_are_known_classes(tmp_path: Path) -> None:
    """B66: `modules.json` may name the four classes of its library, and none of its own."""
    model = make_tiny_model(tmp_path / "tiny")
    (model / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.Pooling"}, {"type": "os.x"}])
    )
    error = refused(model)
    assert [violation.field for violation in error.fields] == ["modules.json"]
    assert "'os.x'" in error.fields[0].description


def tokenizer_with(model: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Changes the tokenizer of a model."""
    content = json.loads((model / TOKENIZER).read_text())
    change(content)
    (model / TOKENIZER).write_text(json.dumps(content))


def pattern(regex: str) -> Callable[[dict[str, object]], None]:
    """Returns the change that splits texts by a pattern."""

    def change(content: dict[str, object]) -> None:
        content["pre_tokenizer"] = {
            "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False,
        }  # fmt: skip

    return change


def many_merges(content: dict[str, object]) -> None:
    """Gives a tokenizer more merges than any."""
    content["model"]["merges"] = ["a b"] * 2_000_001  # type: ignore[index]


def unknown_kind(content: dict[str, object]) -> None:
    """Gives a tokenizer a kind that no library has."""
    content["model"]["type"] = "Telepathy"  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [many_merges, unknown_kind, pattern("(a+)+$"), pattern("(")],
    ids=["B67-merges", "B67-kind", "B67-regex-bomb", "B67-broken-regex"],
)
def test_tokenizers_that_are_refused(tmp_path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Too large, unknown, or with a pattern that never ends: refused within seconds, by name."""
    model = make_tiny_model(tmp_path / "tiny")
    tokenizer_with(model, change)
    started = time.monotonic()
    error = refused(model)
    assert codes(error) == {"TOKENIZER_REFUSED"}
    assert {violation.field for violation in error.fields} == {TOKENIZER}
    assert time.monotonic() - started < 60  # the processor's time is bounded at a few seconds; this machine is shared


def test_special_tokens_must_be_there(tmp_path: Path) -> None:
    """B67: a configuration that names a token which the tokenizer does not have."""
    model = make_tiny_model(tmp_path / "tiny")
    change_json(model / "tokenizer_config.json", eos_token="<|nowhere|>")
    error = refused(model)
    assert codes(error) == {"TOKENIZER_REFUSED"}
    assert "<|nowhere|>" in error.fields[0].description


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for a in range(10000000000) %}x{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{% if %}",
    ],
    ids=["B67-ssti", "B67-loop", "B67-size", "B67-syntax"],
)
def test_templates_that_are_refused(tmp_path: Path, template: str) -> None:
    """Templates that reach for the interpreter, never end, or are none."""
    model = make_tiny_model(tmp_path / "tiny")
    change_json(model / "tokenizer_config.json", chat_template=template)
    assert codes(refused(model)) == {"TEMPLATE_REFUSED"}


def test_a_sound_adapter_passes_and_a_broken_one_does_not(tmp_path: Path) -> None:
    """B68: an adapter with numbers that are none is refused like any weights."""
    adapter = make_tiny_adapter(tmp_path / "adapter")
    examine_adapter(folder_of(adapter), None)
    weights = load_file(adapter / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = np.nan
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(ServiceError) as caught:
        examine_adapter(folder_of(adapter), None)
    assert codes(caught.value) == {"NON_FINITE_WEIGHTS"}


def test_the_service_keeps_its_secrets_from_the_examiner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examiner's process gets a clean environment: what reads strangers' files holds no key of the service."""
    import subprocess

    seen: list[dict[str, str]] = []
    real = subprocess.run

    def spy(*args: object, **options: object) -> object:
        seen.append(options["env"])  # type: ignore[arg-type]
        return real(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setenv("TUNEFORGE_S3_SECRET_KEY", "secret")
    monkeypatch.setattr(subprocess, "run", spy)
    examine_model(folder_of(make_tiny_model(tmp_path / "tiny")))
    names = ["PATH", "PYTHONPATH", "TOKENIZERS_PARALLELISM", END_WITH_PARENT]
    assert [sorted(environment) for environment in seen] == [names]
