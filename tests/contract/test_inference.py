"""Deployments and completions over a real socket, with a real registry and real engines on a tiny model."""

import dataclasses
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.inference import (
    LoopThread,
    RunningInference,
    finished,
    import_model,
    loop_thread,
    name_of,
    publish_adapter,
    serve_registry,
    serving_inference,
)
from tests.support.registry import PROJECT, RunningRegistry, fields_of
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge.errors import TABLE, Reason, TuneforgeError, from_rpc_error
from tuneforge.v1 import aliases_pb2, errors_pb2, inference_pb2, models_pb2, types_pb2

CHAT = [("system", "Be brief."), ("user", "the user says")]
FAILED = inference_pb2.DEPLOYMENT_STATE_FAILED
LENGTH, STOP = inference_pb2.FINISH_REASON_LENGTH, inference_pb2.FINISH_REASON_STOP


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the tests of this file share: services, and versions in the registry."""

    loop: LoopThread
    registry: RunningRegistry
    inference: RunningInference
    base: models_pb2.ModelVersion
    adapter: models_pb2.ModelVersion
    second: models_pb2.ModelVersion


@pytest.fixture(scope="module", name="world")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("inference")
    with loop_thread() as loop:
        registry = serve_registry(loop, folder / "registry")
        base = import_model(loop, registry, "tiny", make_tiny_model(folder / "model"))
        adapter = publish_adapter(loop, registry, "tuned", make_tiny_adapter(folder / "a", seed=1), base)
        second = publish_adapter(loop, registry, "tuned", make_tiny_adapter(folder / "b", seed=2), adapter)
        with serving_inference(loop, folder / "inference", registry.address) as inference:
            inference.deployed("base", base.name)
            inference.deployed("tuned", adapter.name)
            inference.deployed("tuned-twice", second.name)
            yield World(loop=loop, registry=registry, inference=inference, base=base, adapter=adapter, second=second)


def refused(call: Any, reason: Reason) -> TuneforgeError:
    """Returns the error that a call ends with; fails unless it has this reason and its gRPC code."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call()) if callable(call) else list(call)
    error = from_rpc_error(caught.value)
    assert (error.reason, caught.value.code().name) == (reason, TABLE[reason].code), str(error)
    return error


def test_a_deployment_says_what_it_serves(world: World) -> None:
    """READY comes with the version, the base under it, their digests and that of the chat template."""
    base, twice = world.inference.get("base"), world.inference.get("tuned-twice")
    assert base.served.version.version == world.base.name
    assert base.served.version.digest == world.base.manifest.digest
    assert not base.served.HasField("base")
    assert len(base.served.template_sha256) == 64
    assert (base.model, base.creator, base.name) == (world.base.name, "local", name_of("base"))
    assert twice.served.version.digest == world.second.manifest.digest
    assert twice.served.base.digest == world.base.manifest.digest
    assert twice.served.template_sha256 == base.served.template_sha256


def test_base_and_adapters_answer_apart_from_one_engine(world: World) -> None:
    """The base, its adapter and the adapter's adapter give three answers, whichever was asked before."""
    answers = {name: world.inference.texts(name, CHAT, max_new_tokens=12) for name in ("base", "tuned", "tuned-twice")}
    assert len({answer[0] for answer in answers.values()}) == 3
    for name in ("tuned-twice", "base", "tuned"):
        assert world.inference.texts(name, CHAT, max_new_tokens=12) == answers[name]


def test_every_piece_says_where_it_comes_from(world: World) -> None:
    """Each message names version and digests; the last one of a completion has both token counts and a reason."""
    pieces = list(world.inference.stream("tuned", CHAT, "plain text", max_new_tokens=9))
    assert {piece.served.version.digest for piece in pieces} == {world.adapter.manifest.digest}
    assert {piece.served.base.version for piece in pieces} == {world.base.name}
    ends = finished(pieces)
    assert set(ends) == {0, 1}
    for end in ends.values():
        assert end.prompt_tokens > 0
        assert (end.completion_tokens == 9) == (end.finish_reason == LENGTH)


def test_a_batch_answers_as_one_by_one(world: World) -> None:
    """Prompts of different lengths in one request get the texts that each gets alone."""
    prompts = ["a", "the user says that the cat", CHAT, "in the house on the hill there is", [("user", "hi")]]
    together = world.inference.texts("base", *prompts, max_new_tokens=16)
    assert together == [world.inference.texts("base", prompt, max_new_tokens=16)[0] for prompt in prompts]


def test_sampling_repeats_by_seed(world: World) -> None:
    """A seed fixes the texts, other seeds give others, and without one each call draws anew."""
    options = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 16}
    first = world.inference.texts("base", "a", "a", seed=5, **options)
    assert first[0] != first[1]
    assert world.inference.texts("base", "a", "a", seed=5, **options) == first
    assert world.inference.texts("base", "a", "a", seed=6, **options) != first
    assert world.inference.texts("base", "a", **options) != world.inference.texts("base", "a", **options)


def test_a_stop_text_ends_a_completion_and_is_left_out(world: World) -> None:
    """The text ends before the stop text, and no piece shows a part of it."""
    [whole] = world.inference.texts("base", "the", max_new_tokens=40)
    stop = whole[6:9]
    pieces = list(world.inference.stream("base", "the", max_new_tokens=40, stop=[stop, "never there"]))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish_reason == STOP


def test_default_length_is_128(world: World) -> None:
    """A request that names no length gets 128 tokens at most."""
    end = finished(list(world.inference.stream("base", "the")))[0]
    assert end.completion_tokens == 128 or end.finish_reason == STOP


@pytest.mark.parametrize(
    ("fields", "prompts", "expected"),
    [
        ({"max_new_tokens": 4097}, ["a"], ["max_new_tokens"]),
        ({"temperature": 2.1}, ["a"], ["temperature"]),
        ({"temperature": float("nan")}, ["a"], ["temperature"]),
        ({"top_p": 0.0}, ["a"], ["top_p"]),
        ({"stop": ["x"] * 9}, ["a"], ["stop"]),
        ({"stop": [""]}, ["a"], ["stop[0]"]),
        ({}, [], ["prompts"]),
        ({}, ["a"] * 65, ["prompts"]),
        ({}, [[]], ["prompts[0].conversation.messages"]),
        ({}, [[("robot", "hi")]], ["prompts[0].conversation.messages[0].role"]),
        ({}, [[("user", "hi"), ("assistant", "hi")]], ["prompts[0].conversation.messages"]),
        ({}, [[("user", "<|im_end|>")]], ["prompts[0].conversation"]),
        ({}, ["a" * 600], ["prompts[0].text"]),
        ({"max_new_tokens": 505}, ["a" * 20], ["prompts[0].text"]),
        (
            {"top_p": 2.0, "max_new_tokens": 600},
            ["", "a", "a" * 600],
            ["top_p", "prompts[0].text", "prompts[1].text", "prompts[2].text"],
        ),
    ],
)
def test_all_wrong_fields_are_named_at_once(
    world: World, fields: dict[str, Any], prompts: list[Any], expected: list[str]
) -> None:
    """One answer lists every field that is wrong, those that only the tokenizer can judge included."""
    error = refused(world.inference.stream("base", *prompts, **fields), Reason.INVALID_FIELD)
    assert fields_of(error) == expected


def test_a_prompt_too_long_names_the_lengths(world: World) -> None:
    """The answer says how long the prompt is, how much was asked for and what the model takes."""
    error = refused(world.inference.stream("base", "b" * 500, max_new_tokens=100), Reason.INVALID_FIELD)
    text = error.fields[0].description
    assert all(number in text for number in ("500", "100", "512", "12 or fewer"))


def test_a_prompt_far_too_long_is_refused_by_its_characters(world: World) -> None:
    """A prompt that cannot fit is refused before its tokens are made, with both lengths."""
    for prompt in ("a" * 1_000_000, [("user", "a" * 1_000_000)]):
        error = refused(world.inference.stream("base", prompt), Reason.INVALID_FIELD)
        assert re.search(r"has 1000\d\d\d characters, but .* at most \d+", str(error))


def test_an_adapter_that_cannot_be_loaded_fails(world: World, tmp_path: Path) -> None:
    """An adapter that asks for too much fails alone, with a cure; the base beside it goes on answering."""
    folder = make_tiny_adapter(tmp_path / "biased")
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"bias": "all"}))
    adapter = publish_adapter(world.loop, world.registry, "biased", folder, world.base)
    world.inference.create("biased", adapter.name)
    try:
        found = world.inference.loaded("biased")
        assert (found.state, found.failure.reason) == (FAILED, errors_pb2.ERROR_REASON_INVALID_MODEL)
        assert found.failure.fault == types_pb2.FAULT_CLASS_USER
        assert "sets bias to 'all'" in found.failure.message
        assert world.inference.texts("base", "the", max_new_tokens=4)
    finally:
        world.inference.delete("biased")


def test_unknown_deployments_are_not_found(world: World) -> None:
    """Get, Generate and Delete say NOT_FOUND for what is not there."""
    refused(lambda: world.inference.get("nobody"), Reason.NOT_FOUND)
    refused(world.inference.stream("nobody", "a"), Reason.NOT_FOUND)
    refused(lambda: world.inference.delete("nobody"), Reason.NOT_FOUND)


def test_malformed_names_are_refused(world: World) -> None:
    """A name of another form is INVALID_NAME, for every method."""
    stub = world.inference.stub
    wrong = "projects/default/models/x"
    refused(lambda: stub.GetDeployment(inference_pb2.GetDeploymentRequest(name=wrong)), Reason.INVALID_NAME)
    refused(lambda: stub.DeleteDeployment(inference_pb2.DeleteDeploymentRequest(name=wrong)), Reason.INVALID_NAME)
    refused(stub.Generate(inference_pb2.GenerateRequest(name=wrong)), Reason.INVALID_NAME)
    refused(lambda: stub.ListDeployments(inference_pb2.ListDeploymentsRequest(parent="x")), Reason.INVALID_NAME)
    refused(lambda: stub.CreateDeployment(inference_pb2.CreateDeploymentRequest(parent="x")), Reason.INVALID_NAME)


def test_what_cannot_be_deployed_is_refused_at_once(world: World) -> None:
    """Wrong fields are listed together; a version that is not there is NOT_FOUND; a taken id is ALREADY_EXISTS."""
    error = refused(lambda: world.inference.create("Big", "models/x"), Reason.INVALID_FIELD)
    assert fields_of(error) == ["deployment_id", "deployment.model"]
    other = "projects/other/models/tiny/versions/1"
    assert fields_of(refused(lambda: world.inference.create("x", other), Reason.INVALID_FIELD)) == ["deployment.model"]
    refused(lambda: world.inference.create("x", f"{PROJECT}/models/tiny/versions/99"), Reason.NOT_FOUND)
    refused(lambda: world.inference.create("x", f"{PROJECT}/models/tiny/aliases/none"), Reason.NOT_FOUND)
    refused(lambda: world.inference.create("base", world.base.name), Reason.ALREADY_EXISTS)


def test_create_and_delete_are_safe_to_repeat(world: World) -> None:
    """The same request id gives the first answer and changes nothing; with another body it is refused."""
    create, delete = str(uuid.uuid4()), str(uuid.uuid4())
    first = world.inference.create("again", world.base.name, request_id=create)
    assert world.inference.create("again", world.base.name, request_id=create) == first
    refused(lambda: world.inference.create("again", world.adapter.name, request_id=create), Reason.REQUEST_ID_REUSED)
    world.inference.delete("again", request_id=delete)
    world.inference.delete("again", request_id=delete)
    refused(lambda: world.inference.delete("base", request_id=delete), Reason.REQUEST_ID_REUSED)
    refused(lambda: world.inference.get("again"), Reason.NOT_FOUND)
    world.inference.get("base")


def test_an_alias_is_resolved_when_the_deployment_is_made(world: World) -> None:
    """A deployment of an alias goes on serving the version that the alias named, also after it moved."""
    alias = f"{PROJECT}/models/tuned/aliases/production"

    async def move(version: models_pb2.ModelVersion) -> None:
        await world.registry.stub.SetAlias(aliases_pb2.SetAliasRequest(name=alias, version=version.name))

    world.loop.run(move(world.adapter))
    made = world.inference.deployed("by-alias", alias)
    world.loop.run(move(world.second))
    assert made.model == alias
    assert world.inference.get("by-alias").served.version.version == world.adapter.name
    assert world.inference.texts("by-alias", CHAT) == world.inference.texts("tuned", CHAT)
    world.inference.delete("by-alias")
    assert world.inference.texts("tuned", CHAT)


def test_deployments_are_listed_in_pages(world: World) -> None:
    """Pages go through all of a project's deployments by id; wrong page fields are refused."""
    stub = world.inference.stub
    seen, token = [], ""
    while True:
        request = inference_pb2.ListDeploymentsRequest(parent=PROJECT, page_size=2, page_token=token)
        page = stub.ListDeployments(request)
        seen += [deployment.name for deployment in page.deployments]
        token = page.next_page_token
        if not token:
            break
    assert seen == [name_of(name) for name in ("base", "tuned", "tuned-twice")]
    wrong = inference_pb2.ListDeploymentsRequest(parent=PROJECT, page_size=-1)
    refused(lambda: stub.ListDeployments(wrong), Reason.INVALID_FIELD)
    wrong = inference_pb2.ListDeploymentsRequest(parent=PROJECT, page_token="x")
    refused(lambda: stub.ListDeployments(wrong), Reason.INVALID_PAGE_TOKEN)


def test_the_deadline_is_kept(world: World) -> None:
    """A completion that takes longer than the caller waits ends with DEADLINE_EXCEEDED, and the next one runs."""
    refused(world.inference.stream("base", "the", max_new_tokens=480, timeout=0.1), Reason.DEADLINE_EXCEEDED)
    assert world.inference.texts("base", "the", max_new_tokens=2)


def test_a_cancelled_completion_frees_the_engine(world: World) -> None:
    """After a caller leaves, a request of the same size is answered as fast as before."""
    stream = world.inference.stream("base", *["the"] * 64, max_new_tokens=500)
    next(stream)
    stream.cancel()
    assert world.inference.texts("base", "the", max_new_tokens=2, timeout=5.0)


def test_many_callers_get_their_own_answers(world: World) -> None:
    """Concurrent streams of several deployments each get what they get alone."""
    names = ["base", "tuned", "tuned-twice"] * 3
    prompts = [f"{number} the user" for number in range(len(names))]
    streams = [
        world.inference.stream(name, prompt, max_new_tokens=10) for name, prompt in zip(names, prompts, strict=True)
    ]
    answers = ["".join(piece.text for piece in stream) for stream in streams]
    for name, prompt, answer in zip(names, prompts, answers, strict=True):
        assert world.inference.texts(name, prompt, max_new_tokens=10) == [answer]
