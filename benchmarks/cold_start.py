"""From the start of a service's process to SERVING, beside the smallest server on the same libraries.

One process at a time, bytecode compiled, schema in place; rounds alternate. SERVING is what a health check answers, not
what the process says of itself. Equal work: every health check answered SERVING.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.record import Record
from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports

MEASURED = ("registry", "scheduler", "inference")
ROUNDS = 5
TARGET_RATIO = 0.5
LONGEST_S = 1.5


def run() -> Record:
    """Runs the rounds and returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        suite = Suite(data=Path(folder) / "data", ports=ports)
        seconds: dict[str, list[float]] = {name: [] for name in (*MEASURED, "bare")}
        for number in range(ROUNDS + 1):
            for service in MEASURED:
                command = [sys.executable, "-m", f"services.{service}"]
                seconds[service].append(_time_to_serving(command, suite.environment(service)))
            command = [sys.executable, "-m", "benchmarks.bare_server", f"{folder}/bare.sqlite"]
            seconds["bare"].append(_time_to_serving(command, dict(os.environ)))
            if number == 0:  # makes the schemas and warms the disk
                for values in seconds.values():
                    values.clear()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    slowest = max(medians[service] for service in MEASURED)
    return Record(
        name="cold_start",
        what=f"seconds from a process' start to SERVING, the slowest of {', '.join(MEASURED)} (at most {LONGEST_S} s)",
        ours=slowest,
        peer=medians["bare"],
        peer_name="a server on the same libraries with nothing in it",
        ratio=medians["bare"] / slowest,
        target=TARGET_RATIO,
        limit=medians["bare"],
        unit="s",
        equal_output=True,  # a health check that does not answer SERVING ends the benchmark
        command="make bench NAME=cold_start",
        details={f"{service}_s": medians[service] for service in MEASURED} | {"rounds": ROUNDS, "at_most_s": LONGEST_S},
    )


def _time_to_serving(command: Sequence[str], env: dict[str, str]) -> float:
    began = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if process.stdout is None:
            raise AssertionError("stdout is a pipe")
        address = process.stdout.readline().split("listening on ")[1].split()[0]
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            answer = health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise AssertionError(f"{command} is {answer.status}")
        return time.monotonic() - began
    finally:
        process.terminate()
        process.communicate(timeout=60)
