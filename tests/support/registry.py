"""The real registry in the test's own process, on a real socket, and short ways to put things into it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from services.grpckit.settings import ServerSettings
from services.grpckit.testing import serve_in_process
from services.registry.__main__ import define
from services.registry.blobs.settings import StorageSettings
from services.registry.promotions.settings import PromotionSettings
from services.registry.recipes.settings import RecipeSettings
from services.registry.settings import RegistrySettings
from services.registry.sources.settings import SourceSettings
from tests.support.postgres import postgres_of
from tests.support.seaweedfs import s3_of_test
from tuneforge.errors import TABLE, Reason, TuneforgeError, from_rpc_error
from tuneforge.v1 import blobs_pb2, datasets_pb2, models_pb2, types_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

if TYPE_CHECKING:  # the generated module has one class for both; only its types tell them apart
    from tuneforge.v1.registry_pb2_grpc import RegistryServiceAsyncStub

PROJECT = "projects/default"


@dataclass(frozen=True, slots=True)
class RunningRegistry:
    """A registry that takes calls."""

    address: str
    stub: "RegistryServiceAsyncStub"
    blocking: RegistryServiceStub
    """For uploads: the async client takes a stream that the server ends early for a fault of its own."""
    data: Path

    async def put(self, content: bytes, *, project: str = PROJECT, chunk_bytes: int = 64 * 1024) -> str:
        """Uploads content in pieces and returns its digest."""
        digest = hashlib.sha256(content).hexdigest()
        answer = await self.upload(pieces(content, project=project, chunk_bytes=chunk_bytes))
        assert answer.is_stored
        assert answer.name == f"{project}/blobs/{digest}"
        return digest

    async def upload(
        self, messages: Iterable[blobs_pb2.UploadBlobRequest], *, token: str = ""
    ) -> blobs_pb2.UploadBlobResponse:
        """Sends the messages of an upload and returns the answer."""
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        return await asyncio.to_thread(self.blocking.UploadBlob, iter(messages), metadata=metadata)

    async def put_files(self, files: dict[str, bytes], *, project: str = PROJECT) -> types_pb2.Manifest:
        """Uploads files and returns their manifest, without a digest of the whole."""
        manifest = types_pb2.Manifest()
        for path, content in files.items():
            digest = await self.put(content, project=project)
            manifest.files.add(path=path, sha256=digest, size_bytes=len(content))
        return manifest

    async def dataset(self, dataset_id: str = "greetings", *, project: str = PROJECT) -> str:
        """Creates a data set and returns its name."""
        request = datasets_pb2.CreateDatasetRequest(parent=project, dataset_id=dataset_id)
        return (await self.stub.CreateDataset(request)).name

    async def model(self, model_id: str = "tiny", *, project: str = PROJECT) -> str:
        """Creates a model and returns its name."""
        request = models_pb2.CreateModelRequest(parent=project, model_id=model_id)
        return (await self.stub.CreateModel(request)).name

    async def imported(self, model: str, folder: Path) -> models_pb2.ModelVersion:
        """Imports a folder as a version of a model."""
        manifest = await self.put_files(folder_files(folder), project=model.partition("/models/")[0])
        return await self.stub.CreateModelVersion(models_pb2.CreateModelVersionRequest(parent=model, manifest=manifest))


@asynccontextmanager
async def running_registry(
    data: Path,
    *,
    reserve_bytes: int = 0,
    tokens_file: Path | None = None,
    sources: SourceSettings | None = None,
    recipes: RecipeSettings | None = None,
    storage: StorageSettings | None = None,
    promotions: PromotionSettings | None = None,
) -> AsyncIterator[RunningRegistry]:
    """Serves the registry from a data folder while the block runs.

    Args:
        data: Made when missing; what an earlier registry left there is gone on with.
        reserve_bytes: Space that uploads leave free.
        tokens_file: Who may call; None lets everyone.
        recipes: Where the operator's recipes are; None: nowhere.
        sources: How content is fetched from elsewhere; None takes the defaults.
        promotions: Where promoted versions go; None: nowhere.
        storage: Where blobs live; None: where the fixture `each_home` says, else in the data folder.
    """
    server = ServerSettings(service="registry", listen="127.0.0.1:0", data=data, tokens_file=tokens_file, drain_s=1.0)
    settings = RegistrySettings(
        server=server,
        reserve_bytes=reserve_bytes,
        postgres=postgres_of("registry", data),
        sources=sources or SourceSettings(),
        recipes=recipes or RecipeSettings(),
        promotions=promotions or PromotionSettings(),
        storage=storage or StorageSettings(s3=s3_of_test(), collect_every_s=0),
    )
    definition = define(settings)
    async with serve_in_process(definition, server) as address, grpc.aio.insecure_channel(address) as channel:
        with grpc.insecure_channel(address) as blocking:
            yield RunningRegistry(address, RegistryServiceStub(channel), RegistryServiceStub(blocking), data)


def pieces(
    content: bytes, *, project: str = PROJECT, offset: int = 0, chunk_bytes: int = 64 * 1024, digest: str = ""
) -> Iterator[blobs_pb2.UploadBlobRequest]:
    """Yields the messages of an upload.

    Args:
        content: The whole content.
        project: Name of the project.
        offset: Where the upload goes on.
        chunk_bytes: Bytes in each message.
        digest: Digest to claim; empty for the true one.
    """
    upload = f"{project}/uploads/{digest or hashlib.sha256(content).hexdigest()}"
    first = content[offset : offset + chunk_bytes]
    yield blobs_pb2.UploadBlobRequest(upload=upload, size_bytes=len(content), offset=offset, data=first)
    for start in range(offset + chunk_bytes, len(content), chunk_bytes):
        yield blobs_pb2.UploadBlobRequest(data=content[start : start + chunk_bytes])


async def refused(call: Awaitable[object], reason: Reason) -> TuneforgeError:
    """Returns the error that a call ends with; fails unless it has this reason, and the gRPC code of the reason."""
    try:
        answer = await call
    except grpc.RpcError as rpc_error:
        error, code = from_rpc_error(rpc_error), _code_of(rpc_error)
    else:
        raise AssertionError(f"the call was answered: {answer!r}")
    assert (code, error.reason) == (TABLE[reason].code, reason), str(error)
    return error


def _code_of(error: grpc.RpcError) -> str:
    """Returns the name of the gRPC code; errors of the blocking and the async client share no class that has it."""
    if isinstance(error, grpc.aio.AioRpcError | grpc.Call):
        return str(error.code().name)
    raise TypeError(f"an error without a code: {error!r}")


def fields_of(error: TuneforgeError) -> list[str]:
    """Returns the fields that an error names, in order."""
    return [violation.field for violation in error.fields]


def folder_files(folder: Path) -> dict[str, bytes]:
    """Returns path -> content of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
