"""The peer of the registry's benchmarks: MLflow's registry server over SQLite, in an environment of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from services.stores.ports import free_ports
from services.stores.programs import end_program, last_lines

VENV = Path(".tuneforge/peers/mlflow")
START_LIMIT_S = 120.0

# Run by the peer's own Python. MLflow makes its schema; the rows go in together, since one at a time takes minutes.
FILL = """
import sys
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.dbmodels.models import (
    SqlModelVersion, SqlModelVersionTag, SqlRegisteredModel, SqlRegisteredModelAlias)

uri, models, versions, alias = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
store = SqlAlchemyStore(uri)
now = 1_750_000_000_000
for model in range(models):
    name = f"model-{model:04}"
    with store.ManagedSessionMaker() as session:
        session.add(SqlRegisteredModel(name=name, creation_time=now, last_updated_time=now, description=""))
        session.flush()
        for number in range(1, versions + 1):
            session.add(SqlModelVersion(
                name=name, version=number, creation_time=now, last_updated_time=now, description="", user_id="local",
                source=f"models:/{name}/{number}", storage_location=f"s3://blobs/{name}/{number}", run_id="0" * 32,
                status="READY"))
        session.flush()
        for number in range(1, versions + 1):
            for key, value in (("loss", 1.0 / number), ("eval_loss", 1.1 / number), ("accuracy", 0.5)):
                session.add(SqlModelVersionTag(name=name, version=number, key=key, value=str(value)))
        session.add(SqlRegisteredModelAlias(name=name, alias=alias, version=max(1, versions // 2)))
"""


@dataclass(frozen=True, slots=True)
class MlflowServer:
    """A running server."""

    port: int
    version: str
    pid: int
    """Of the process that has the workers as its children."""


class MlflowClient:
    """No more than HTTP and JSON, so that the server alone is measured.

    Args:
        port: Of the server on loopback.
        keeps_connection: Whether calls share a connection, as those of MLflow's own client do. The server answers in
            two pieces without switching Nagle's algorithm off, so that a kept connection waits 40 ms for each answer;
            a new one for each call costs less.
    """

    def __init__(self, port: int, *, keeps_connection: bool) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._keeps_connection = keeps_connection

    def by_alias(self, name: str, alias: str) -> Any:
        """Returns the version that an alias names."""
        return self._call("GET", "registered-models/alias?" + urlencode({"name": name, "alias": alias}))[
            "model_version"
        ]

    def page(self, name: str, size: int, token: str = "") -> Any:
        """Returns a page of a model's versions and the next page's token."""
        query = {"filter": f"name='{name}'", "max_results": size, "order_by": "version_number DESC"}
        return self._call("GET", "model-versions/search?" + urlencode(query | ({"page_token": token} if token else {})))

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Moves an alias."""
        self._call("POST", "registered-models/alias", {"name": name, "alias": alias, "version": str(version)})

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            status, text = self._ask(method, path, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self._connection.close()  # the server ends kept connections that were idle
            status, text = self._ask(method, path, body)
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"MLflow answered {status}: {text[:500]!r}")
        return json.loads(text)

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        content = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, f"/api/2.0/mlflow/{path}", body=content, headers=headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if not self._keeps_connection:
            self._connection.close()  # the next request opens another one
        return answer.status, text


@contextmanager
def mlflow_server(folder: Path, models: int, versions: int, alias: str) -> Iterator[MlflowServer]:
    """Fills a database and serves it while the block runs, with the server's own defaults."""
    python = _python()
    uri = f"sqlite:///{folder}/mlflow.db"
    variables = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    subprocess.run([str(python), "-c", FILL, uri, str(models), str(versions), alias], check=True, env=variables)
    (port,) = free_ports(1)
    command = [str(python), "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--default-artifact-root", str(folder / "artifacts")]
    log = folder / "mlflow.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=variables, start_new_session=True
        )
    try:
        _wait(process, port, log)
        show = "import mlflow.version as v; print(v.VERSION)"
        version = subprocess.run([str(python), "-c", show], capture_output=True, text=True, check=True)
        yield MlflowServer(port, version.stdout.strip(), process.pid)
    finally:
        end_program(process, [(signal.SIGTERM, 20.0)])
        _end_group(process.pid)


def _end_group(group: int) -> None:
    """Ends workers that the server left behind; they share its process group, which it began."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_at = time.monotonic() + START_LIMIT_S
    pause = threading.Event()
    while process.poll() is None and time.monotonic() < give_up_at:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pause.wait(0.1)
        finally:
            connection.close()
    raise RuntimeError(f"MLflow's server does not start:\n{last_lines(log, 20)}")


def _python() -> Path:
    """Returns the Python of an environment that has MLflow, made at the first run."""
    python = (VENV / "bin" / "python").absolute()
    done = VENV / ".ready"
    if not done.exists():
        print("  installing MLflow for the comparison, once", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "mlflow>=3"], check=True)
        done.touch()
    return python
