"""Upload and download of a gigabyte through the registry on one disk, beside a plain copy of the file with hashing.

Registry and client are processes of their own, whose peak memory is read. Each round copies, uploads and downloads a
fresh file, so that nothing is stored already; the file is in the page cache, and before each of them as much memory is
used and given back, so that all of them write into pages that the machine has at hand. Upload and download verify the
digest on both sides and sync the file; the copy hashes once and syncs. The limit of an upload is the bare stream of
`benchmarks.blob_wire`, with the same hashing and writing and nothing of the registry; that of any transfer is the bare
socket of `benchmarks.blob_socket`.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import Record
from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports

SIZE_BYTES = 10**9
ROUNDS = 5
TARGET_RATIO = 0.6
MOST_MB = 200.0
_RANDOM_BYTES = 8 * 1024 * 1024


def run(size_bytes: int = SIZE_BYTES, rounds: int = ROUNDS) -> Record:
    """Runs the rounds and returns the record.

    Args:
        size_bytes: Of the file.
        rounds: How many.
    """
    rates: dict[str, list[float]] = {"copy": [], "socket": [], "wire": [], "upload": [], "download": []}
    client_mb = 0.0
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        environment = Suite(data=folder / "data", ports=ports).environment("registry")
        with (
            RegistryProcess(environment) as registry,
            RegistryProcess(environment, "benchmarks.blob_wire", str(folder / "wire")) as wire,
            RegistryProcess(environment, "benchmarks.blob_socket", str(folder / "socket")) as socket,
        ):
            for number in range(rounds + 1):
                results = _round(folder, size_bytes, (registry.address, wire.address, socket.address), number)
                if not number:  # the first round warms processes and disk
                    continue
                for name, result in results.items():
                    rates[name].append(size_bytes / 1e6 / result["seconds"])
                client_mb = max(client_mb, results["upload"]["peak_mb"], results["download"]["peak_mb"])
            registry_mb = registry.peak_mb()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    slower = min(medians["upload"], medians["download"])
    return Record(
        name="blobs",
        what=f"{size_bytes / 1e9:g} GB through the registry on one disk, the slower of upload and download",
        ours=slower,
        peer=medians["copy"],
        peer_name="a plain copy of the file with hashing and sync, in the same run",
        ratio=slower / medians["copy"],
        target=TARGET_RATIO,
        limit=medians["wire"],
        unit="MB/s",
        equal_output=max(client_mb, registry_mb) <= MOST_MB,
        command="make bench NAME=blobs",
        details={f"{name}_mb_per_s": median for name, median in medians.items()}
        | {
            "upload_of_wire": medians["upload"] / medians["wire"],
            "wire_of_copy": medians["wire"] / medians["copy"],
            "socket_of_copy": medians["socket"] / medians["copy"],
            "registry_peak_mb": registry_mb,
            "client_peak_mb": client_mb,
            "at_most_mb": MOST_MB,
            "rounds": rounds,
        },
    )


def _round(folder: Path, size_bytes: int, addresses: tuple[str, str, str], number: int) -> dict[str, dict[str, Any]]:
    """Moves a fresh file in each way; returns what each of them took.

    Args:
        folder: For all files.
        size_bytes: Of the file.
        addresses: Of the registry, of `benchmarks.blob_wire` and of `benchmarks.blob_socket`.
        number: Of the round.
    """
    registry, wire, socket = addresses
    file, back = folder / "content", folder / "back"
    write_file(file, size_bytes, seed=number)
    results: dict[str, dict[str, Any]] = {}
    for name, arguments in (
        ("copy", ("copy", file, folder / "copy")),
        ("socket", ("socket", socket, file)),
        ("wire", ("wire", wire, file)),
        ("upload", ("upload", registry, file)),
    ):
        _touch_memory(folder, size_bytes)
        results[name] = measure(*arguments)
    _touch_memory(folder, size_bytes)
    digest = results["copy"]["digest"]
    results["download"] = measure("download", registry, digest, size_bytes, back)
    if any(result["digest"] != digest for result in results.values()) or back.stat().st_size != size_bytes:
        raise AssertionError("the bytes that came are not those that went")
    for path in (back, folder / "copy", folder / "wire", folder / "socket"):
        path.unlink()
    return results


class RegistryProcess:
    """A registry in a process of its own, or another module that says where it listens."""

    def __init__(self, environment: dict[str, str], module: str = "services.registry", *arguments: str) -> None:
        self._environment = environment
        self._command = [sys.executable, "-m", module, *arguments]
        self.address = ""

    def __enter__(self) -> RegistryProcess:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if self._process.stdout is None:
            raise AssertionError("stdout is a pipe")
        self.address = self._process.stdout.readline().split("listening on ")[1].split()[0]
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)

    def peak_mb(self) -> float:
        """Returns the most memory that it has had."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) * 1.024e-3 if found else float("nan")


def measure(*arguments: object) -> dict[str, Any]:
    """Makes one transfer in a process of its own; see `benchmarks.blob_client`."""
    command = [sys.executable, "-m", "benchmarks.blob_client", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _touch_memory(folder: Path, size_bytes: int) -> None:
    """Writes and removes a file: on a virtual machine, memory that was never used costs several times a write."""
    write_file(folder / "touched", size_bytes, seed=0)
    (folder / "touched").unlink()


def write_file(path: Path, size_bytes: int, *, seed: int) -> None:
    """Writes a file that differs from all others of the run, and lets the disk come to rest."""
    block = os.urandom(_RANDOM_BYTES)
    with path.open("wb") as file:
        file.write(f"{seed} {time.time_ns()}".encode().ljust(64))
        while (left := size_bytes - file.tell()) > 0:
            file.write(block[:left])
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    print(json.dumps(run(int(float(sys.argv[1])), int(sys.argv[2])).details, indent=1))
