"""The package's public face."""

import ast
import importlib
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
PUBLIC: list[str] = vars(tuneforge)["__all__"]
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
# What values are made from, and no value itself.
BASES = {"Word"}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_had(name: str) -> None:
    """What `__all__` promises is there."""
    assert getattr(tuneforge, name) is not None


def test_type_checkers_see_the_names_that_can_be_had() -> None:
    """The stub takes each name from the module that it is loaded from, and has no other."""
    tree = ast.parse((ROOT / "__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    seen = {(str(node.module), alias.name) for node in imports for alias in node.names}
    homes = vars(tuneforge)["_HOMES"].items()
    assert seen == {(f"tuneforge.{home}", name) for home, names in homes for name in names.split()}
    assert all(alias.asname == alias.name for node in imports for alias in node.names), "not exported"


def test_values_that_public_values_hold_are_public() -> None:
    """Who reads a job, a spec or an event can name the type of everything in it."""
    homes = {home for home in vars(tuneforge)["_HOMES"] if home.endswith(("values", "spec", "events"))}
    defined = {
        name
        for home in homes
        for name, value in vars(importlib.import_module(f"tuneforge.{home}")).items()
        if isinstance(value, type) and value.__module__ == f"tuneforge.{home}" and not name.startswith("_")
    }
    assert defined - set(PUBLIC) == BASES


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing mistake is answered as by any module."""
    with pytest.raises(AttributeError, match="Clint"):
        tuneforge.Clint  # type: ignore[attr-defined]  # noqa: B018 - the access is the test


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
