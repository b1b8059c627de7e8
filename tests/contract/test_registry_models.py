"""Models and imported versions, over a real socket."""

import asyncio
import json
import struct
from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, folder_files, refused, running_registry
from tests.support.seaweedfs import EACH_HOME
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge.errors import Reason, TuneforgeError
from tuneforge.v1 import events_pb2, types_pb2
from tuneforge.v1 import models_pb2 as pb

pytestmark = EACH_DATABASE


def create(model_id: str, *, request_id: str = "", description: str = "") -> pb.CreateModelRequest:
    """Returns the request that creates a model."""
    model = pb.Model(description=description)
    return pb.CreateModelRequest(parent=PROJECT, model_id=model_id, model=model, request_id=request_id)


def import_of(parent: str, manifest: types_pb2.Manifest, *, request_id: str = "") -> pb.CreateModelVersionRequest:
    """Returns the request that imports a version."""
    return pb.CreateModelVersionRequest(parent=parent, manifest=manifest, request_id=request_id)


async def refused_files(registry: RunningRegistry, files: dict[str, bytes]) -> TuneforgeError:
    """Imports files that must be refused as INVALID_MODEL and returns the error."""
    model = await registry.model()
    manifest = await registry.put_files(files)
    return await refused(registry.stub.CreateModelVersion(import_of(model, manifest)), Reason.INVALID_MODEL)


@on_loop
async def test_a_model_is_created_and_found(tmp_path: Path) -> None:
    """What was created is what Get and List give."""
    async with running_registry(tmp_path) as registry:
        created = await registry.stub.CreateModel(create("tiny", description="Small."))
        assert created.name == f"{PROJECT}/models/tiny"
        assert (created.creator, created.latest_version) == ("local", "")
        assert await registry.stub.GetModel(pb.GetModelRequest(name=created.name)) == created
        listed = await registry.stub.ListModels(pb.ListModelsRequest(parent=PROJECT))
        assert list(listed.models) == [created]


@on_loop
async def test_a_model_exists_once_and_its_fields_are_checked(tmp_path: Path) -> None:
    """ALREADY_EXISTS for the same id, INVALID_FIELD for malformed fields, and the request id is remembered."""
    async with running_registry(tmp_path) as registry:
        stub = registry.stub
        first = await stub.CreateModel(create("tiny", request_id="one"))
        assert await stub.CreateModel(create("tiny", request_id="one")) == first
        await refused(stub.CreateModel(create("tiny")), Reason.ALREADY_EXISTS)
        await refused(stub.CreateModel(create("other", request_id="one")), Reason.REQUEST_ID_REUSED)
        error = await refused(stub.CreateModel(create("-x", description="x" * 4097)), Reason.INVALID_FIELD)
        assert fields_of(error) == ["model_id", "model.description"]


@on_loop
async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    """Each method that names a model, a version or an alias says NOT_FOUND."""
    async with running_registry(tmp_path) as registry:
        stub, missing = registry.stub, f"{PROJECT}/models/none"
        manifest = await registry.put_files({"config.json": b"{}"})
        await refused(stub.GetModel(pb.GetModelRequest(name=missing)), Reason.NOT_FOUND)
        await refused(stub.CreateModelVersion(import_of(missing, manifest)), Reason.NOT_FOUND)
        await refused(stub.ListModelVersions(pb.ListModelVersionsRequest(parent=missing)), Reason.NOT_FOUND)
        for part in ("versions/1", "versions/latest", "aliases/production"):
            request = pb.GetModelVersionRequest(name=f"{missing}/{part}")
            await refused(stub.GetModelVersion(request), Reason.NOT_FOUND)
        await refused(stub.GetModelVersion(pb.GetModelVersionRequest(name=missing)), Reason.INVALID_NAME)


@on_loop
async def test_lists_of_models_are_walked_by_pages(tmp_path: Path) -> None:
    """Following the tokens gives each model once; other tokens and sizes are refused."""
    async with running_registry(tmp_path) as registry:
        stub = registry.stub
        for number in range(3):
            await registry.model(f"model-{number}")
        first = await stub.ListModels(pb.ListModelsRequest(parent=PROJECT, page_size=2))
        request = pb.ListModelsRequest(parent=PROJECT, page_size=2, page_token=first.next_page_token)
        second = await stub.ListModels(request)
        names = [each.name.rpartition("/")[2] for page in (first, second) for each in page.models]
        assert names == ["model-0", "model-1", "model-2"]
        assert second.next_page_token == ""
        await refused(stub.ListModels(pb.ListModelsRequest(parent=PROJECT, page_size=-1)), Reason.INVALID_FIELD)
        bad = pb.ListModelsRequest(parent=PROJECT, page_token="AAAA")
        await refused(stub.ListModels(bad), Reason.INVALID_PAGE_TOKEN)


@EACH_HOME
@on_loop
async def test_an_import_knows_its_architecture(tmp_path: Path) -> None:
    """A version has the configuration as it stands and the shape of every weight; lists leave the shapes out."""
    folder = make_tiny_model(tmp_path / "tiny")
    async with running_registry(tmp_path / "data") as registry:
        model = await registry.model()
        made = await registry.imported(model, folder)
        assert made.name == f"{model}/versions/1"
        assert made.kind == events_pb2.ARTIFACT_KIND_MODEL
        assert made.architecture.class_name == "LlamaForCausalLM"
        assert made.architecture.config_json == (folder / "config.json").read_text()
        shapes = {tensor.name: (tuple(tensor.shape), tensor.dtype) for tensor in made.architecture.tensors}
        assert shapes["model.layers.0.self_attn.q_proj.weight"] == ((64, 64), "F32")
        total = sum(int.__mul__(*shape) if len(shape) == 2 else shape[0] for shape, _ in shapes.values())
        assert made.architecture.parameters == total
        assert made.lineage == pb.Lineage()
        assert made.size_bytes == sum(len(content) for content in folder_files(folder).values())
        for version in ("1", "latest"):
            request = pb.GetModelVersionRequest(name=f"{model}/versions/{version}")
            assert await registry.stub.GetModelVersion(request) == made
        (listed,) = (await registry.stub.ListModelVersions(pb.ListModelVersionsRequest(parent=model))).versions
        assert not listed.architecture.tensors
        assert not listed.HasField("signature")
        assert not listed.HasField("signature")
        listed.architecture.tensors.extend(made.architecture.tensors)
        listed.signature.CopyFrom(made.signature)
        listed.signature.CopyFrom(made.signature)
        assert listed == made


@on_loop
async def test_the_same_files_are_the_same_version(tmp_path: Path) -> None:
    """An import sent again, also at the same time and with a request id, makes no second version."""
    folder = make_tiny_model(tmp_path / "tiny")
    async with running_registry(tmp_path / "data") as registry:
        model = await registry.model()
        manifest = await registry.put_files(folder_files(folder))
        made = await asyncio.gather(
            *(registry.stub.CreateModelVersion(import_of(model, manifest)) for _ in range(3)),
            registry.stub.CreateModelVersion(import_of(model, manifest, request_id="one")),
            registry.stub.CreateModelVersion(import_of(model, manifest, request_id="one")),
        )
        assert {version.name for version in made} == {f"{model}/versions/1"}
        other = await registry.put_files(folder_files(make_tiny_model(tmp_path / "other", seed=1)))
        call = registry.stub.CreateModelVersion(import_of(model, other, request_id="one"))
        await refused(call, Reason.REQUEST_ID_REUSED)


@on_loop
async def test_versions_are_walked_newest_first(tmp_path: Path) -> None:
    """Pages of versions go from the newest to the oldest; other tokens and sizes are refused."""
    async with running_registry(tmp_path / "data") as registry:
        stub, model = registry.stub, await registry.model()
        for seed in range(3):
            await registry.imported(model, make_tiny_model(tmp_path / str(seed), seed=seed))
        first = await stub.ListModelVersions(pb.ListModelVersionsRequest(parent=model, page_size=2))
        request = pb.ListModelVersionsRequest(parent=model, page_size=2, page_token=first.next_page_token)
        second = await stub.ListModelVersions(request)
        numbers = [each.name.rpartition("/")[2] for page in (first, second) for each in page.versions]
        assert numbers == ["3", "2", "1"]
        negative = pb.ListModelVersionsRequest(parent=model, page_size=-1)
        await refused(stub.ListModelVersions(negative), Reason.INVALID_FIELD)
        bad = pb.ListModelVersionsRequest(parent=model, page_token="AAAA")
        await refused(stub.ListModelVersions(bad), Reason.INVALID_PAGE_TOKEN)


@on_loop
async def test_pickles_and_code_are_refused_by_name(tmp_path: Path) -> None:
    """Every file that could run code, and every unknown one, is named in one answer."""
    files = folder_files(make_tiny_model(tmp_path / "tiny"))
    bad = ["pytorch_model.bin", "optimizer.pt", "extra.pkl", "modeling_tiny.py", "nested/thing.xyz"]
    async with running_registry(tmp_path / "data") as registry:
        error = await refused_files(registry, files | dict.fromkeys(bad, b"x"))
        assert sorted(fields_of(error)) == sorted(bad)
        assert not (await registry.stub.GetModel(pb.GetModelRequest(name=f"{PROJECT}/models/tiny"))).latest_version


@on_loop
async def test_remote_code_is_refused(tmp_path: Path) -> None:
    """`auto_map` in any configuration is refused, however harmless the rest is."""
    files = folder_files(make_tiny_model(tmp_path / "tiny"))
    for path in ("config.json", "tokenizer_config.json"):
        files[path] = json.dumps(json.loads(files[path]) | {"auto_map": {"AutoModel": "x.Y"}}).encode()
    async with running_registry(tmp_path / "data") as registry:
        error = await refused_files(registry, files)
        assert sorted(fields_of(error)) == ["config.json", "tokenizer_config.json"]


@on_loop
async def test_all_problems_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    """An unsupported class, a missing tokenizer and torn weights come in one answer."""
    files = folder_files(make_tiny_model(tmp_path / "tiny"))
    files["config.json"] = json.dumps(
        json.loads(files["config.json"]) | {"architectures": ["MambaForCausalLM"]}
    ).encode()
    files["model.safetensors"] = files["model.safetensors"][:-1]
    del files["tokenizer.json"]
    async with running_registry(tmp_path / "data") as registry:
        error = await refused_files(registry, files)
        assert sorted(fields_of(error)) == ["config.json", "model.safetensors", "tokenizer.json"]
        assert "MambaForCausalLM" in str(error)


@EACH_HOME
@on_loop
async def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    """A safetensors header that claims to be longer than the file is refused before anything is read by it."""
    files = folder_files(make_tiny_model(tmp_path / "tiny"))
    files["model.safetensors"] = struct.pack("<Q", 2**63) + b"{}"
    async with running_registry(tmp_path / "data") as registry:
        error = await refused_files(registry, files)
        assert "9223372036854775808" in error.fields[0].description


@on_loop
async def test_an_adapter_is_no_import(tmp_path: Path) -> None:
    """An adapter without the run that made it has no base to be served on; the answer says what to do."""
    async with running_registry(tmp_path / "data") as registry:
        error = await refused_files(registry, folder_files(make_tiny_adapter(tmp_path / "adapter")))
        assert "Give the base that it was trained on" in str(error)


@on_loop
async def test_manifests_of_models_are_checked(tmp_path: Path) -> None:
    """Empty manifests, wrong digests and blobs of other projects are refused as for data sets."""
    async with running_registry(tmp_path / "data") as registry:
        stub, model = registry.stub, await registry.model()
        await refused(stub.CreateModelVersion(import_of(model, types_pb2.Manifest())), Reason.INVALID_FIELD)
        manifest = await registry.put_files({"config.json": b"{}"}, project="projects/other")
        await refused(stub.CreateModelVersion(import_of(model, manifest)), Reason.BLOB_MISSING)
        manifest.digest = "f" * 64
        await refused(stub.CreateModelVersion(import_of(model, manifest)), Reason.DIGEST_MISMATCH)
