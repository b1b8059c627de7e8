"""The real command-line clients, grpcurl and buf curl, against a service without its protos."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from services.grpckit.settings import ServerSettings
from services.grpckit.testing import serve_in_process
from tests.support.event_loop import on_loop
from tests.support.sample_service import NAME, Sample, definition

SETTINGS = ServerSettings(service="sample", listen="127.0.0.1:0", drain_s=1.0, log_level="error")
TOOLS = Path(sys.executable).parent


async def _run(program: str, *arguments: str) -> tuple[int, str]:
    path = TOOLS / program
    if not path.exists():
        pytest.fail(f"{path} is missing; `make setup` installs it")
    process = await asyncio.create_subprocess_exec(
        path, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@on_loop
async def test_grpcurl_lists_describes_and_calls() -> None:
    """The old reflection is enough for grpcurl: list, describe everything, call unary and streaming, read an error."""
    async with serve_in_process(definition(Sample()), SETTINGS) as target:
        code, out = await _run("grpcurl", "-plaintext", target, "list")
        expected = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
        assert (code, out.split()) == (0, [*expected, "grpc.reflection.v1alpha.ServerReflection", NAME])
        code, out = await _run("grpcurl", "-plaintext", target, "describe")
        assert code == 0, out
        assert "rpc Count ( .google.protobuf.StringValue ) returns ( stream .google.protobuf.StringValue );" in out
        code, out = await _run("grpcurl", "-plaintext", "-d", '"projects/p/ok"', target, f"{NAME}/Say")
        assert (code, json.loads(out)) == (0, "projects/p/ok")
        code, out = await _run("grpcurl", "-plaintext", "-d", '"projects/p/ok"', target, f"{NAME}/Count")
        assert (code, out.split()) == (0, ['"1"', '"2"'])
        code, out = await _run("grpcurl", "-plaintext", "-d", '"projects/p/state"', target, f"{NAME}/Say")
        assert code != 0
        for part in ("FailedPrecondition", "the sample has ended", "WRONG_STATE", "PreconditionFailure", "request_id"):
            assert part in out
        code, out = await _run("grpcurl", "-plaintext", target, "grpc.health.v1.Health/Check")
        assert (code, json.loads(out)) == (0, {"status": "SERVING"})


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
@on_loop
async def test_buf_curl_works_with_either_version(version: str) -> None:
    """With v1 alone and with v1alpha alone, buf lists the methods and calls one."""
    options = ("curl", "--http2-prior-knowledge", "--protocol", "grpc", "--reflect-protocol", version)
    async with serve_in_process(definition(Sample()), SETTINGS) as target:
        code, out = await _run("buf", *options, "--list-methods", f"http://{target}")
        assert code == 0, out
        assert f"{NAME}/Say" in out.split()
        code, out = await _run("buf", *options, "--data", '"projects/p/ok"', f"http://{target}/{NAME}/Say")
        assert (code, json.loads(out)) == (0, "projects/p/ok")
        code, out = await _run("buf", *options, "--data", '"projects/p/missing"', f"http://{target}/{NAME}/Say")
        assert code != 0
        assert "there is no sample" in out
