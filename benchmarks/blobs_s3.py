"""Upload and download of half a gigabyte into a real S3 server by presigned URL, beside the minio client alone.

Both hash what they move; ours also asks the registry for URLs, sends parts in parallel, and has the registry read the
object once, since S3 knows no SHA-256 over an upload in parts. That the bytes do not pass through the registry shows in
its memory and in what it reads: the object once at an upload, nothing at a download.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.blobs import MOST_MB, RegistryProcess, measure, write_file
from benchmarks.record import Record
from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports
from tests.support.seaweedfs import S3Server

SIZE_BYTES = 512 * 10**6
ROUNDS = 3
TARGET_RATIO = 0.6


def run(size_bytes: int = SIZE_BYTES, rounds: int = ROUNDS) -> Record:
    """Runs the rounds and returns the record.

    Args:
        size_bytes: Of the file.
        rounds: How many.
    """
    rates: dict[str, list[float]] = {"put": [], "get": [], "upload": [], "download": []}
    client_mb = 0.0
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        server = S3Server(folder / "s3")
        server.start()
        try:
            bucket = server.bucket()
            os.environ |= {"AWS_ACCESS_KEY_ID": bucket.access_key, "AWS_SECRET_ACCESS_KEY": bucket.secret_key}
            ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
            environment = Suite(data=folder / "data", ports=ports).environment("registry")
            environment |= {
                "TUNEFORGE_REGISTRY_BLOBS": f"s3://{bucket.name}",
                "TUNEFORGE_REGISTRY_S3_ENDPOINT": bucket.endpoint,
            }
            with RegistryProcess(environment) as registry:
                for number in range(rounds):
                    file = folder / "content"
                    write_file(file, size_bytes, seed=number)
                    put = measure("put", bucket.endpoint, bucket.name, file)
                    get = measure("get", bucket.endpoint, bucket.name, folder / "plain")
                    up = measure("upload", registry.address, file)
                    down = measure("download", registry.address, up["digest"], size_bytes, folder / "back")
                    if len({each["digest"] for each in (put, get, up, down)}) != 1:
                        raise AssertionError("the bytes that came are not those that went")
                    for name, result in (("put", put), ("get", get), ("upload", up), ("download", down)):
                        rates[name].append(size_bytes / 1e6 / result["seconds"])
                    client_mb = max(client_mb, up["peak_mb"], down["peak_mb"])
                    (folder / "back").unlink()
                registry_mb = registry.peak_mb()
        finally:
            server.kill()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return Record(
        name="blobs_s3",
        what=f"{size_bytes / 1e9:g} GB into a real S3 server by presigned URL, the worse ratio of upload and download",
        ours=medians["upload"],
        peer=medians["put"],
        peer_name="the minio client alone, with hashing, in the same run",
        ratio=min(medians["upload"] / medians["put"], medians["download"] / medians["get"]),
        target=TARGET_RATIO,
        limit=medians["put"],
        unit="MB/s",
        equal_output=max(client_mb, registry_mb) <= MOST_MB,
        command="make bench NAME=blobs_s3",
        details={f"{name}_mb_per_s": value for name, value in medians.items()}
        | {"registry_peak_mb": registry_mb, "client_peak_mb": client_mb, "at_most_mb": MOST_MB, "rounds": rounds},
    )


if __name__ == "__main__":
    print(json.dumps(run(int(float(sys.argv[1])), int(sys.argv[2])).details, indent=1))
