"""The package's public face."""

import subprocess
import sys
from pathlib import Path

import pytest

import tuneforge
from tuneforge.v1 import (
    inference_pb2,
    registry_pb2,
    scheduler_pb2,
    trainer_pb2,
)

ROOT = Path(tuneforge.__file__).parent
# Methods that services call on each other; the SDK has no business with them.
BETWEEN_SERVICES = {
    "RegisterNode",
    "Heartbeat",
    "PublishVersion",
    "HoldVersions",
    "ListHolds",
    "HoldBlobs",
    "ReleaseBlobs",
    "StartAttempt",
    "WatchAttempt",
    "AckEvents",
    "StopAttempt",
}


@pytest.mark.parametrize("name", tuneforge.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    """What `__all__` promises is there."""
    assert getattr(tuneforge, name) is not None


def test_all_names_what_type_checkers_see() -> None:
    """The lazy table and the imports for type checkers list the same names."""
    homes = {name for names in tuneforge._HOMES.values() for name in names.split()}
    assert homes | {"__version__"} == set(tuneforge.__all__)
    source = Path(tuneforge.__file__).read_text()
    seen = source.partition("if TYPE_CHECKING:")[2].partition("_HOMES")[0]
    assert all(name in seen for name in tuneforge.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing mistake is answered as by any module."""
    with pytest.raises(AttributeError, match="Clint"):
        tuneforge.Clint  # noqa: B018 - the access is the test


def test_importing_the_package_loads_neither_grpc_nor_protobuf() -> None:
    """A process that forks may import parts of the package."""
    code = "import sys, tuneforge.manifest; sys.exit('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_method_of_the_contract_is_forgotten() -> None:
    """Every method that is meant for clients is called somewhere in the SDK."""
    source = "".join(path.read_text() for path in ROOT.glob("*.py"))
    services = [
        registry_pb2.DESCRIPTOR.services_by_name["RegistryService"],
        scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"],
        trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"],
        inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
    ]
    methods = {method.name for service in services for method in service.methods}
    assert {name for name in methods - BETWEEN_SERVICES if f"tub.{name}" not in source} == set()
