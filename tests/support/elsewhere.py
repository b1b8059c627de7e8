"""Places to import from, all on this machine: a file server, a hub, and the operator's file that allows them."""

import json
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.registry.sources.settings import SourceSettings
from tests.support.certificates import make_certificates
from tests.support.https_files import FileServer, serving_files
from tests.support.hub import Hub, serving_hub
from tuneforge.v1 import datasets_pb2, models_pb2, sources_pb2


@dataclass
class Elsewhere:
    """What there is, and what the operator says of it."""

    folder: Path
    files: FileServer
    hub: Hub
    allowed: dict[str, Any] = field(default_factory=dict)

    def settings(self, **changes: Any) -> SourceSettings:
        """Writes the operator's file and returns the settings that name it."""
        path = self.folder / "sources.json"
        path.write_text(json.dumps(self.allowed))
        return SourceSettings(file=path, **changes)


@contextmanager
def elsewhere(folder: Path) -> Iterator[Elsewhere]:
    """Serves the places while the block runs; the file server and the hub are allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    certificates = make_certificates(folder)
    with serving_files(certificates) as files, serving_hub(files) as hub:
        allowed = {
            "https": {"hosts": [files.host], "networks": ["127.0.0.0/8", "::1/128"]},
            "hub": {"endpoint": hub.endpoint, "hosts": [files.host]},
            "ca": certificates.ca.name,
        }
        yield Elsewhere(folder, files, hub, allowed)


def dataset_request(parent: str, uri: str, **fields: Any) -> sources_pb2.ImportDatasetVersionRequest:
    """Returns the request that imports a data set; fields of the location and of the request, by name."""
    own = {name: fields.pop(name) for name in ("source_split", "source_config", "request_id") if name in fields}
    location = sources_pb2.Location(uri=uri, **fields)
    return sources_pb2.ImportDatasetVersionRequest(parent=parent, location=location, **own)


def model_request(parent: str, uri: str, **fields: Any) -> sources_pb2.ImportModelVersionRequest:
    """Returns the request that imports a model."""
    own = {name: fields.pop(name) for name in ("request_id",) if name in fields}
    location = sources_pb2.Location(uri=uri, **fields)
    return sources_pb2.ImportModelVersionRequest(parent=parent, location=location, **own)


@dataclass
class Outcome:
    """What an import told."""

    progress: list[sources_pb2.ImportProgress] = field(default_factory=list)
    version: Any = None


async def followed(
    stream: "AsyncIterable[sources_pb2.ImportDatasetVersionResponse | sources_pb2.ImportModelVersionResponse]",
) -> Outcome:
    """Follows an import to its end.

    Raises:
        grpc.RpcError: What it ended with.
    """
    outcome = Outcome()
    async for message in stream:
        if message.WhichOneof("step") == "progress":
            outcome.progress.append(message.progress)
        else:
            outcome.version = message.version
    assert isinstance(outcome.version, datasets_pb2.DatasetVersion | models_pb2.ModelVersion)
    return outcome
