"""The suite on both real servers, as `python -m services --stores real` starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import minio
import psutil
import pytest

from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports
from services.stores.real import BUCKET, RealStores
from services.stores.seaweedfs import REGION
from tests.support.patience import TEST_LIMIT_S
from tests.support.suite import connect, tiny_inputs
from tuneforge import GenerationOptions
from tuneforge.job_values import JobState

pytestmark = pytest.mark.postgres

SPEC = {
    "base": {"model": "tiny/1"},
    "supervised": {},
    "lora": {"rank": 2},
    "data": {"train": {"dataset": "animals"}},
    "optimization": {"max_steps": 4, "rows_per_step": 2},
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can reach: where we are root, PostgreSQL is somebody else."""
    with tempfile.TemporaryDirectory(prefix="tuneforge-real-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def new_suite(folder: Path) -> Suite:
    """Returns a suite on real stores, not yet started."""
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    env = {"OMP_NUM_THREADS": "1", "TUNEFORGE_TRAINER_CPU_MILLIS": "1000"}
    return Suite(data=folder, ports=ports, metrics=False, extra_env=env, stores=RealStores(folder / "stores"))


def keys(stores: RealStores) -> list[str]:
    """Returns the keys of all objects in the bucket."""
    pair = json.loads(stores.s3.credentials_file.read_text())
    client = minio.Minio(stores.s3.endpoint.removeprefix("http://"), **pair, region=REGION, secure=False)
    return [str(found.object_name) for found in client.list_objects(BUCKET, recursive=True)]


def test_the_main_flow_on_postgres_and_s3(folder: Path) -> None:
    """Import, upload, tune, publish, promote, serve; then everything is restarted and still there."""
    suite = new_suite(folder / "data")
    assert suite.stores is not None
    try:
        suite.start()
        with connect(suite) as client:
            model, rows = tiny_inputs(folder / "inputs")
            client.models.import_folder(model, "tiny")
            client.datasets.upload(rows, "animals")
            ended = client.jobs.create(SPEC, job_id="flow").result()
            assert ended.state is JobState.SUCCEEDED
            assert ended.version is not None
            version = client.models.version(ended.version.version)
            name, number = version.name.split("/models/")[1].split("/versions/")
            alias = client.aliases.set(name, "production", int(number), reason="it learnt")
            deployment = client.deployments.create("animals", f"{name}@production")
            (answer,) = client.deployments.generate(
                deployment.name,
                messages=[{"role": "user", "content": "Say cat 0."}],
                options=GenerationOptions(max_new_tokens=4),
            )
            assert answer.served.version == ended.version
        stored = [key for key in keys(suite.stores) if key.startswith("blobs/")]
        assert len(stored) >= len(version.manifest.files)
        assert not [path for kind in ("*.sqlite*", "*.db*") for path in (folder / "data").rglob(kind)]

        suite.stop()
        suite.start()
        with connect(suite) as client:
            assert client.aliases.get(name, "production") == alias
            assert client.models.version(version.name) == version
            assert client.jobs.get("flow").state is JobState.SUCCEEDED
            deployment = client.deployments.wait(deployment.name)
            (again,) = client.deployments.generate(
                deployment.name,
                messages=[{"role": "user", "content": "Say cat 0."}],
                options=GenerationOptions(max_new_tokens=4),
            )
            assert again.text == answer.text
    finally:
        suite.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_servers_end_with_the_launcher(folder: Path, number: signal.Signals) -> None:
    """Ctrl-C ends services and servers in order; when the launcher is killed, they end by themselves."""
    command = [sys.executable, "-m", "services", "--stores", "real", "--port", "0", "--data", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        lines = []
        for line in launcher.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert any(line.startswith("PostgreSQL on 127.0.0.1:") for line in lines), lines
        children = psutil.Process(launcher.pid).children(recursive=True)
        names = {child.name() for child in children}
        assert {"postgres", "weed"} <= names
        launcher.send_signal(number)
        assert launcher.wait() == (0 if number == signal.SIGINT else -number)
        _, alive = psutil.wait_procs(children, timeout=TEST_LIMIT_S)
        assert alive == []


def test_a_folder_stays_with_its_stores(folder: Path) -> None:
    """A suite that began on real stores is not begun anew on files by a start without them."""
    first = new_suite(folder)
    first.start("registry")
    first.stop()
    second = new_suite(folder)
    second.stores = None
    with pytest.raises(Exception, match="TUNEFORGE_REGISTRY_DATABASE_URL is not set") as caught:
        second.start("registry")
    assert getattr(caught.value, "exit_code", None) == 78
