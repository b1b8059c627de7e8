"""TLS and tokens: what is configured works, and what is missing keeps a service on loopback."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.grpckit import peers
from services.grpckit.binding import check_exposure
from services.grpckit.errors import ServiceError
from services.grpckit.folder_lock import StartRefused
from services.grpckit.server import Server
from services.grpckit.settings import PeerSettings, ServerSettings
from services.grpckit.testing import running_server, serve_in_process
from tests.support.certificates import Certificates, make_certificates
from tests.support.event_loop import on_loop
from tests.support.sample_service import Sample, Text, definition, stub
from tuneforge.errors import from_rpc_error


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and a server certificate."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def settings(certificates: Certificates, tmp_path: Path) -> ServerSettings:
    """A service with TLS and the tokens of four principals."""
    entries = [
        ("viewer", ["viewer"], ["p"], False),
        ("editor", ["editor"], ["p"], False),
        ("stranger", ["admin"], ["q"], False),
        ("scheduler", ["service"], ["*"], True),
    ]
    (tmp_path / "tokens").write_text(
        json.dumps(
            [
                {
                    "token_sha256": hashlib.sha256(f"token-{name}".encode()).hexdigest(),
                    "principal": name,
                    "roles": roles,
                    "projects": projects,
                    "is_service": is_service,
                }
                for name, roles, projects, is_service in entries
            ]
        )
    )
    return ServerSettings(
        service="sample",
        listen="127.0.0.1:0",
        drain_s=1.0,
        log_level="error",
        tls_cert=certificates.cert,
        tls_key=certificates.key,
        tokens_file=tmp_path / "tokens",
    )


async def _call(channel: Any, kind: str = "Say", value: str = "projects/p/whoami", **headers: str) -> str:
    """Returns the answer, or the reason of the error."""

    async def requests() -> Any:
        yield Text(value=value)

    metadata = tuple((key.replace("_", "-"), each) for key, each in headers.items())
    method = getattr(stub(channel), kind)
    try:
        call = method(requests() if kind in {"Collect", "Chat"} else Text(value=value), metadata=metadata)
        if kind in {"Count", "Chat"}:
            return " ".join([message.value async for message in call])
        return str((await call).value)
    except grpc.RpcError as error:
        return from_rpc_error(error).reason


def _secure(target: str, certificates: Certificates) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(certificates.ca.read_bytes()))


@on_loop
async def test_a_token_over_tls_is_a_principal(settings: ServerSettings, certificates: Certificates) -> None:
    """With TLS and a token the call is the principal's; without a token, or with a wrong one, it is nobody's."""
    async with serve_in_process(definition(Sample()), settings) as target, _secure(target, certificates) as channel:
        answer = await _call(channel, authorization="Bearer token-viewer")
        assert answer.startswith("viewer viewer ")
        assert await _call(channel) == "UNAUTHENTICATED"
        assert await _call(channel, authorization="Bearer token-nobody") == "UNAUTHENTICATED"
        assert await _call(channel, "Chat") == "UNAUTHENTICATED"
        async with grpc.aio.insecure_channel(target) as plain:
            assert await _call(plain, authorization="Bearer token-viewer") == "PEER_UNAVAILABLE"


@on_loop
async def test_roles_and_projects_decide_in_all_four_kinds(
    settings: ServerSettings, certificates: Certificates
) -> None:
    """The permission comes from the policy, the project from the request; for a client's stream the servicer checks."""
    denied = "PERMISSION_DENIED"
    async with serve_in_process(definition(Sample()), settings) as target, _secure(target, certificates) as channel:
        for name, say, count, collect, chat in (
            ("viewer", "projects/p/ok", "1 2", denied, denied),
            ("editor", "projects/p/ok", "1 2", "projects/p/ok", denied),
            ("stranger", denied, denied, denied, denied),
            ("scheduler", "projects/p/ok", "1 2", "projects/p/ok", "projects/p/ok"),
        ):
            token = f"Bearer token-{name}"
            for kind, expected in (("Say", say), ("Count", count), ("Collect", collect), ("Chat", chat)):
                assert await _call(channel, kind, "projects/p/ok", authorization=token) == expected, (name, kind)


@on_loop
async def test_only_a_service_speaks_for_others(settings: ServerSettings, certificates: Certificates) -> None:
    """On-behalf-of is taken from a service principal and refused from anyone else."""
    async with serve_in_process(definition(Sample()), settings) as target, _secure(target, certificates) as channel:
        for name, actor, expected in (
            ("scheduler", "alice", "scheduler alice"),
            ("viewer", "alice", "PERMISSION_DENIED"),
            ("scheduler", "x" * 300, "PERMISSION_DENIED"),
        ):
            headers = {"authorization": f"Bearer token-{name}", "x_tuneforge_on_behalf_of": actor}
            assert (await _call(channel, **headers)).startswith(expected), (name, actor)


@on_loop
async def test_who_calls_is_said_once(settings: ServerSettings, certificates: Certificates) -> None:
    """B83: with two tokens, or two users that it is for, a call is nobody's, whichever of them is good."""
    token = ("authorization", "Bearer token-scheduler")
    async with serve_in_process(definition(Sample()), settings) as target, _secure(target, certificates) as channel:
        for more in (
            [("authorization", "Bearer token-nobody")],
            [token],
            [("x-tuneforge-on-behalf-of", "alice"), ("x-tuneforge-on-behalf-of", "bob")],
        ):
            for metadata in ([token, *more], [*more, token]):
                with pytest.raises(grpc.RpcError) as caught:
                    await stub(channel).Say(Text(value="projects/p/whoami"), metadata=metadata)
                assert from_rpc_error(caught.value).reason == "UNAUTHENTICATED"
                assert "more than once" in str(from_rpc_error(caught.value))


@on_loop
async def test_a_peer_channel_uses_tls_and_its_token(settings: ServerSettings, certificates: Certificates) -> None:
    """A service reaches another one with its own token, and is told when that token is not known."""
    with_token = PeerSettings(token="token-scheduler", tls_ca=certificates.ca)
    async with serve_in_process(definition(Sample()), settings) as target:
        async with peers.open_channel(target, with_token) as channel:
            answer = await peers.call(stub(channel).Say(Text(value="projects/p/whoami")))
            assert answer.value.startswith("scheduler scheduler")
        async with peers.open_channel(target, replace(with_token, token="wrong")) as channel:
            with pytest.raises(ServiceError) as caught:
                await peers.call(stub(channel).Say(Text(value="projects/p/whoami")), peer="the registry")
            assert caught.value.reason == "PEER_UNAVAILABLE"
            assert "token" in caught.value.message


@on_loop
async def test_health_needs_no_token_and_reflection_does(settings: ServerSettings, certificates: Certificates) -> None:
    """Probes have no token; the list of services is for those who may call them, in no particular project."""
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2

    async def ask() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async with serve_in_process(definition(Sample()), settings) as target, _secure(target, certificates) as channel:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        assert (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        reflect: Any = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            [answer async for answer in reflect(ask())]
        assert from_rpc_error(caught.value).reason == "UNAUTHENTICATED"
        token = (("authorization", "Bearer token-stranger"),)
        assert len([answer async for answer in reflect(ask(), metadata=token)]) == 1


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.1.2.3:0", "some-host:0", "127.0.0.1.evil.example:0"])
@pytest.mark.parametrize("where", ["listen", "metrics_listen"])
def test_no_stranger_is_let_in_by_default(address: str, where: str) -> None:
    """Without TLS and tokens any address but loopback is refused, for gRPC and for metrics, naming what is missing."""
    base = ServerSettings(service="sample", listen="127.0.0.1:0")
    with pytest.raises(StartRefused, match="TUNEFORGE_TLS_CERT, TUNEFORGE_TLS_KEY, TUNEFORGE_TOKENS_FILE"):
        check_exposure(replace(base, listen=address) if where == "listen" else replace(base, metrics_listen=address))


def test_each_missing_half_is_named(settings: ServerSettings) -> None:
    """TLS without tokens, tokens without TLS and a certificate without a key are refused; all together are fine."""
    outside = replace(settings, listen="0.0.0.0:0")
    check_exposure(outside)
    with pytest.raises(StartRefused, match="set TUNEFORGE_TOKENS_FILE"):
        check_exposure(replace(outside, tokens_file=None))
    with pytest.raises(StartRefused, match="set TUNEFORGE_TLS_CERT, TUNEFORGE_TLS_KEY"):
        check_exposure(replace(outside, tls_cert=None, tls_key=None))
    with pytest.raises(StartRefused, match="set TUNEFORGE_TLS_KEY too"):
        check_exposure(replace(outside, tls_key=None))
    with pytest.raises(StartRefused, match="set TUNEFORGE_TLS_CERT too"):
        check_exposure(replace(outside, tls_cert=None))


@on_loop
async def test_with_tls_and_tokens_any_address_is_bound(settings: ServerSettings, certificates: Certificates) -> None:
    """A fully configured service listens on all addresses."""
    server = Server(definition(Sample()), replace(settings, listen="0.0.0.0:0"))
    await server.start()
    try:
        port = server.address.rpartition(":")[2]
        async with _secure(f"127.0.0.1:{port}", certificates) as channel:
            assert (await _call(channel, authorization="Bearer token-viewer")).startswith("viewer")
    finally:
        await server.stop()


@on_loop
async def test_a_certificate_that_cannot_be_used_is_refused(settings: ServerSettings, tmp_path: Path) -> None:
    """A broken certificate, or the key of another one, is told at the start and not at each handshake."""
    (tmp_path / "broken.pem").write_text("no certificate")
    with pytest.raises(StartRefused, match=r"broken\.pem"):
        async with running_server(definition(Sample()), replace(settings, tls_cert=tmp_path / "broken.pem")):
            pass


def test_an_error_over_the_wire_never_repeats_a_token(
    settings: ServerSettings, certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the answer nor the log has the token that was sent."""

    @on_loop
    async def scenario() -> None:
        async with serve_in_process(definition(Sample()), settings) as target, _secure(target, certificates) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                await stub(channel).Say(Text(value="projects/p/x"), metadata=(("authorization", "Bearer s3cret"),))
            typed = from_rpc_error(caught.value)
            assert "s3cret" not in f"{typed} {typed.metadata} {caught.value}"

    scenario()
    assert "s3cret" not in "".join(capsys.readouterr())
