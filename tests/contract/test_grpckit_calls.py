"""What a call passes, over real sockets: every exception mapped, deadlines, cancellation, limits, ids, projects."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from services.grpckit import interceptors, logging
from services.grpckit.auth import Policy
from services.grpckit.server import Server
from services.grpckit.settings import ServerSettings
from services.grpckit.testing import running_server, serve_in_process
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.sample_service import POLICIES, Sample, Text, definition, stub
from tuneforge.errors import TuneforgeError, from_rpc_error

SETTINGS = ServerSettings(service="sample", listen="127.0.0.1:0", drain_s=1.0, log_level="error")
KINDS = ("Say", "Count", "Collect", "Chat")


async def _requests(*values: str) -> AsyncIterator[Any]:
    for value in values:
        yield Text(value=value)


async def _outcome(channel: grpc.aio.Channel, kind: str, verb: str, **options: Any) -> TuneforgeError | list[str]:
    """Makes a call of any kind; returns its typed error, or the values of its answers."""
    method = getattr(stub(channel), kind)
    value = f"projects/p/{verb}"
    request = _requests(value) if kind in {"Collect", "Chat"} else Text(value=value)
    try:
        call = method(request, **options)
        if kind in {"Count", "Chat"}:
            return [message.value async for message in call]
        return [(await call).value]
    except grpc.RpcError as error:
        return from_rpc_error(error)


@pytest.mark.parametrize("kind", KINDS)
@on_loop
async def test_every_exception_is_mapped(kind: str) -> None:
    """Whatever a handler raises, in all four kinds, is a status with its reason, its fields and the request id."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        assert isinstance(await _outcome(channel, kind, "ok"), list)
        for verb, name, reason in (
            ("missing", "NotFound", "NOT_FOUND"),
            ("invalid", "InvalidArgument", "INVALID_FIELD"),
            ("state", "FailedPrecondition", "WRONG_STATE"),
            ("full", "ResourceExhausted", "DISK_FULL"),
            ("fault", "InternalError", "INTERNAL"),
        ):
            error = await _outcome(channel, kind, verb, metadata=(("x-request-id", f"id-{verb}"),))
            assert isinstance(error, TuneforgeError)
            assert (type(error).__name__, error.reason, error.request_id) == (name, reason, f"id-{verb}")
            assert "secret" not in str(error)
            assert len(error.fields) == (2 if verb == "invalid" else 0)


@on_loop
async def test_an_answer_with_very_many_problems_still_arrives() -> None:
    """A hundred long violations reach a client with default options, cut, instead of breaking its trailers."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        error = await _outcome(channel, "Say", "many")
        assert isinstance(error, TuneforgeError)
        assert error.reason == "INVALID_FIELD"
        assert 0 < len(error.fields) == 100 - int(error.metadata["fields_omitted"])


@on_loop
async def test_a_fault_is_logged_under_its_incident(capsys: pytest.CaptureFixture[str]) -> None:
    """The log has the traceback under the incident id that the caller was told, with the call's request id."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        logging.configure("sample", "info")
        error = await _outcome(channel, "Say", "fault", metadata=(("x-request-id", "r-9"),))
        assert isinstance(error, TuneforgeError)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    fault = next(line for line in lines if line.get("incident") == error.metadata["incident"])
    assert fault["request_id"] == "r-9"
    assert "ValueError: secret detail" in fault["exception"]
    ended = next(line for line in lines if line["event"] == "call")
    assert (ended["code"], ended["reason"], ended["method"]) == ("INTERNAL", "INTERNAL", fault["method"])


@on_loop
async def test_the_servers_own_limit_ends_a_unary_call() -> None:
    """A unary call without a deadline ends at the server's limit; a policy may give another one."""
    policies = {**POLICIES, "Say": replace(POLICIES["Say"], deadline_s=0.1)}
    sample = Sample()
    async with (
        serve_in_process(definition(sample, policies=policies), SETTINGS) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        error = await _outcome(channel, "Say", "wait")
        assert isinstance(error, TuneforgeError)
        assert (error.reason, error.metadata["limit_s"]) == ("DEADLINE_EXCEEDED", "0.1")
        assert sample.events == ["cancelled"]


@on_loop
async def test_the_clients_deadline_reaches_the_handler() -> None:
    """A handler knows the nearer of the client's deadline and the server's limit, and is cancelled at it."""
    sample = Sample()
    async with serve_in_process(definition(sample), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        for timeout, low, high in ((20.0, 10.0, 20.2), (None, 20.2, 30.0), (1000.0, 20.2, 30.0)):
            answer = await _outcome(channel, "Say", "deadline", timeout=timeout)
            assert isinstance(answer, list)
            assert low < float(answer[0]) <= high
        error = await _outcome(channel, "Say", "wait", timeout=1.0)  # it is with the handler long before
        assert isinstance(error, TuneforgeError)
        assert type(error).__name__ == "DeadlineExceeded"
        await sample.release.wait()
        assert sample.events == ["cancelled"]


@on_loop
async def test_a_client_that_leaves_cancels_a_waiting_handler() -> None:
    """Cancelling a unary call and a stream ends their handlers at the `await` where they are."""
    sample = Sample()
    async with running_server(definition(sample), SETTINGS) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call = stub(channel).Say(Text(value="projects/p/wait"))
            await sample.entered.wait()
            call.cancel()
            await sample.release.wait()
            assert sample.events == ["cancelled"]
            sample.release.clear()
            stream = stub(channel).Count(Text(value="projects/p/wait"))
            assert [(await stream.read()).value, (await stream.read()).value] == ["1", "2"]
            stream.cancel()
            await sample.release.wait()
        assert _handled(server, "Canceled") == 2


@on_loop
async def test_a_client_that_leaves_closes_a_handler_at_its_yield() -> None:
    """A generator that is suspended at `yield`, held back by flow control, is closed at once, `finally` included."""
    sample = Sample()
    async with running_server(definition(sample), SETTINGS) as server:
        async with grpc.aio.insecure_channel(server.address, options=[("grpc.http2.bdp_probe", 0)]) as channel:
            stream = stub(channel).Count(Text(value="projects/p/flood"))
            assert (await stream.read()).value == "1"
            stream.cancel()
            await sample.release.wait()
            assert sample.events[-1] == "closed"
            assert sample.events[0] in {"GeneratorExit", "CancelledError"}
        assert _handled(server, "Canceled") == 1
        assert _running(server) == 0


def _handled(server: Server, code: str) -> float:
    return sum(
        sample.value
        for metric in server.metrics.handled.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["grpc_code"] == code
    )


def _running(server: Server) -> float:
    return sum(sample.value for metric in server.metrics.running.collect() for sample in metric.samples)


@on_loop
async def test_streams_do_not_starve_unary_calls() -> None:
    """With every stream taken a further stream is refused with a delay for the retry, and unary calls run on."""
    sample = Sample()
    async with (
        serve_in_process(definition(sample), replace(SETTINGS, max_streams=2)) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        streams = [stub(channel).Count(Text(value="projects/p/wait")) for _ in range(2)]
        for stream in streams:
            await stream.read()
        error = await _outcome(channel, "Count", "ok")
        assert isinstance(error, TuneforgeError)
        assert (error.reason, error.retry_after_s) == ("TOO_MANY_CALLS", 1.0)
        assert await _outcome(channel, "Say", "ok") == ["projects/p/ok"]
        sample.release.set()
        for stream in streams:
            assert (await stream.read()).value == "2"
            assert await stream.read() is grpc.aio.EOF
        assert await _outcome(channel, "Count", "ok") == ["1", "2"]


@on_loop
async def test_a_burst_of_watchers_is_let_in_whole() -> None:
    """Fifteen hundred streams that open at once, as after a restart, are all served, and unary calls beside them."""
    sample = Sample()
    async with serve_in_process(definition(sample), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        streams = [stub(channel).Count(Text(value="projects/p/wait")) for _ in range(1500)]
        first = await asyncio.gather(*(stream.read() for stream in streams))
        assert {message.value for message in first} == {"1"}
        assert await _outcome(channel, "Say", "ok") == ["projects/p/ok"]
        sample.release.set()
        rest = await asyncio.gather(*(stream.read() for stream in streams))
        assert {message.value for message in rest} == {"2"}
        await asyncio.gather(*(stream.read() for stream in streams))


@on_loop
async def test_unary_calls_have_a_limit() -> None:
    """More running unary calls than allowed are refused; a place is free again when one ends."""
    sample = Sample()
    async with (
        serve_in_process(definition(sample), replace(SETTINGS, max_unary_calls=1)) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        call = stub(channel).Say(Text(value="projects/p/wait"))
        await sample.entered.wait()
        error = await _outcome(channel, "Say", "ok")
        assert isinstance(error, TuneforgeError)
        assert error.reason == "TOO_MANY_CALLS"
        sample.release.set()
        assert (await call).value == "projects/p/wait"
        assert await _outcome(channel, "Say", "ok") == ["projects/p/ok"]


@on_loop
async def test_a_message_above_the_limit_is_refused() -> None:
    """The limit of a request's size is settable, and said by gRPC itself."""
    settings = replace(SETTINGS, max_message_bytes=1000)
    async with serve_in_process(definition(Sample()), settings) as target, grpc.aio.insecure_channel(target) as channel:
        error = await _outcome(channel, "Say", "x" * 2000)
        assert type(error).__name__ == "ResourceExhausted"
        assert await _outcome(channel, "Say", "x" * 500) == [f"projects/p/{'x' * 500}"]


@on_loop
async def test_a_message_that_grows_above_the_limit_is_refused() -> None:
    """B84: a few kilobytes that unpack to 16 MiB are not handed on; an honest packed call comes through."""
    packed = {"compression": grpc.Compression.Gzip}
    async with serve_in_process(definition(Sample()), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        error = await _outcome(channel, "Say", "x" * 2**24, **packed)
        assert type(error).__name__ == "ResourceExhausted"
        assert await _outcome(channel, "Say", "x" * 500, **packed) == [f"projects/p/{'x' * 500}"]


@on_loop
async def test_the_request_id_is_the_callers_or_a_new_one() -> None:
    """A fit id is taken over, one that could forge a log line is replaced; the trailers tell it either way."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        for given, is_kept in (("abc-1.2:3_4", True), ("x" * 129, False), ("a b", False), ("", False)):
            call = stub(channel).Say(Text(value="projects/p/whoami"), metadata=(("x-request-id", given),))
            seen = (await call).value.split(" ")[2]
            assert (seen == given) is is_kept
            assert dict(await call.trailing_metadata())["x-request-id"] == seen


@on_loop
async def test_a_name_without_a_project_is_refused_before_the_handler() -> None:
    """The project is read from the request's name by the policy; a malformed name is INVALID_NAME."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        for kind in ("Say", "Count"):
            call = getattr(stub(channel), kind)(Text(value="nonsense"))
            with pytest.raises(grpc.RpcError) as caught:
                await (call.read() if kind == "Count" else call)
            assert from_rpc_error(caught.value).reason == "INVALID_NAME"


@on_loop
async def test_unknown_methods_and_bytes_that_do_not_parse_do_no_harm() -> None:
    """What does not exist is UNIMPLEMENTED and makes no label; bytes that are no message are the caller's fault."""
    async with running_server(definition(Sample()), SETTINGS) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            for path, data, code in (
                ("/tuneforge.test.v1.SampleService/None", b"", grpc.StatusCode.UNIMPLEMENTED),
                ("/some.Service/Some", b"", grpc.StatusCode.UNIMPLEMENTED),
                ("/tuneforge.test.v1.SampleService/Say", b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
            ):
                send: Any = channel.unary_unary(path)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await send(data)
                assert caught.value.code() is code
                assert "DecodeError" not in str(caught.value.details())
            pour: Any = channel.stream_unary("/tuneforge.test.v1.SampleService/Collect")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await pour(iter([b"\xff\xff"]))
            assert from_rpc_error(caught.value).reason == "INVALID_FIELD"
            assert await _outcome(channel, "Say", "ok") == ["projects/p/ok"]
        page = server.metrics.page().decode()
        assert "some.Service" not in page
        assert 'grpc_method="None"' not in page


@on_loop
async def test_a_method_whose_row_is_lost_is_denied() -> None:
    """Without a policy nobody may call: the gate denies even if the check at the start were passed."""
    async with (
        running_server(definition(Sample()), SETTINGS) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        server._gate.policies = {"/tuneforge.test.v1.SampleService/Chat": Policy("samples.read")}
        error = await _outcome(channel, "Say", "ok")
        assert isinstance(error, TuneforgeError)
        assert error.reason == "PERMISSION_DENIED"


@on_loop
async def test_a_client_that_streams_is_refused_once_its_first_message_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that crossed the client's first write would be told to an asyncio client as INTERNAL."""
    speak = asyncio.Event()

    async def slow() -> AsyncIterator[Any]:
        await speak.wait()
        yield Text(value="projects/p/ok")

    async with (
        running_server(definition(Sample()), SETTINGS) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        server._gate.policies = {"/tuneforge.test.v1.SampleService/Say": Policy("samples.read", "value")}
        monkeypatch.setattr(interceptors, "_FIRST_MESSAGE_S", 60.0)
        call = stub(channel).Chat(slow())
        await call.wait_for_connection()
        assert await _outcome(channel, "Say", "ok") == ["projects/p/ok"]  # by now a refusal would have come
        assert not call.done()
        speak.set()
        assert (await refusal(call.read(), "PERMISSION_DENIED")).reason == "PERMISSION_DENIED"
        monkeypatch.setattr(interceptors, "_FIRST_MESSAGE_S", 0.1)
        speak.clear()
        silent = stub(channel).Chat(slow())
        assert (await refusal(silent.read(), "PERMISSION_DENIED")).reason == "PERMISSION_DENIED"
        speak.set()  # or the client's side would wait for ever


@on_loop
async def test_a_handler_may_give_bytes_and_a_wrong_type_is_a_fault() -> None:
    """Bytes go out as they are; an answer of another type is INTERNAL without the exception's text."""

    class Odd(Sample):
        async def Say(self, request: Any, _context: Any) -> Any:
            return Text(value="ready").SerializeToString() if request.value.endswith("bytes") else 7

        async def Count(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
            yield Text(value="1").SerializeToString()
            yield object()

    async with serve_in_process(definition(Odd()), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        assert await _outcome(channel, "Say", "bytes") == ["ready"]
        for kind in ("Say", "Count"):
            error = await _outcome(channel, kind, "other")
            assert isinstance(error, TuneforgeError)
            assert error.reason == "INTERNAL"
            assert "TypeError" not in str(error)


@on_loop
async def test_many_calls_at_once_keep_their_own_context() -> None:
    """Two hundred concurrent calls each see their own request id."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target, grpc.aio.insecure_channel(target) as channel:
        say = stub(channel).Say
        answers = await asyncio.gather(
            *(say(Text(value="projects/p/whoami"), metadata=(("x-request-id", f"id-{n}"),)) for n in range(200))
        )
        assert [answer.value for answer in answers] == [f"local local id-{n}" for n in range(200)]
