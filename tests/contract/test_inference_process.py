"""The inference service as a process: how fast it starts, what it does not load, and how it ends."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_LIMIT_S = 120.0


def environment(data: Path) -> dict[str, str]:
    """Returns the environment of an inference service with this data folder, on a free port."""
    return os.environ | {
        "TUNEFORGE_DATA": str(data),
        "TUNEFORGE_INFERENCE_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_INFERENCE_METRICS_LISTEN": "",
        "TUNEFORGE_REGISTRY_ADDRESS": "127.0.0.1:9",
    }


@contextmanager
def started(data: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Starts the service and waits until it serves; yields the process and its address, and kills it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.inference"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(data),
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_LIMIT_S)
            line = process.stdout.readline() if ready else ""
            assert line.startswith("tuneforge inference listening on "), line
            yield process, line.split()[4]
        finally:
            process.kill()


def test_it_serves_without_torch(tmp_path: Path) -> None:
    """A service without deployments is SERVING within seconds, has no torch in its process, and ends with 0."""
    with started(tmp_path) as (process, address), grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())  # type: ignore[no-untyped-call]
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        maps = Path(f"/proc/{process.pid}/maps")
        if maps.exists():
            assert "libtorch" not in maps.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_LIMIT_S) == 0


def test_imports_stay_small() -> None:
    """Importing the whole service brings in neither torch nor transformers nor what only a first start needs."""
    code = (
        "import sys, services.inference.__main__; "
        "print([name for name in ('torch', 'transformers', 'peft', 'alembic', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Of two processes on one data folder the second ends with 78 and one clear line."""
    with started(tmp_path):
        begin = time.monotonic()
        second = subprocess.run(
            [sys.executable, "-m", "services.inference"],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=START_LIMIT_S,
            check=False,
        )
        assert second.returncode == 78
        assert "tuneforge inference:" in second.stderr
        assert "Traceback" not in second.stderr
        assert time.monotonic() - begin < START_LIMIT_S


def test_wrong_settings_are_told_together(tmp_path: Path) -> None:
    """Every wrong setting gets its line on stderr, and the exit code is 78."""
    wrong = {
        "TUNEFORGE_INFERENCE_DEVICE": "gpu",
        "TUNEFORGE_INFERENCE_DTYPE": "int8",
        "TUNEFORGE_INFERENCE_THREADS": "-1",
        "TUNEFORGE_INFERENCE_MAX_ROWS": "0",
    }
    process = subprocess.run(
        [sys.executable, "-m", "services.inference"],
        env=environment(tmp_path) | wrong,
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )
    assert process.returncode == 78
    for name in wrong:
        assert name in process.stderr
    assert "Traceback" not in process.stderr
