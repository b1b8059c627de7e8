"""The methods by which a scheduler keeps the blobs of checkpoints: things that are no versions and yet need bytes."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from sqlalchemy import Connection

from services.registry.blobs import store
from services.registry.calls import Calls, Context
from services.registry.library import now_us
from services.registry.manifests import require_stored
from services.registry.wire import manifest_of_request
from tuneforge.names import CheckpointName
from tuneforge.v1 import blobs_pb2 as pb


class BlobHoldCalls(Calls):
    """Holds of blobs and their release."""

    async def HoldBlobs(self, request: pb.HoldBlobsRequest, context: Context) -> pb.BlobHold:
        """Keeps the blobs of a checkpoint from the collector."""
        name = CheckpointName.parse(request.name)
        manifest = manifest_of_request(request.manifest)

        def hold(connection: Connection) -> int:
            digests = {file.sha256 for file in manifest.files}
            require_stored(manifest, store.blob_sizes(connection, name.project, digests))
            store.add_uses(connection, str(name), manifest, time_us=now_us())
            return store.count_uses(connection, str(name))

        return pb.BlobHold(name=str(name), num_blobs=await self._database.write(hold))

    async def ReleaseBlobs(self, request: pb.ReleaseBlobsRequest, context: Context) -> pb.BlobHold:
        """Lets the collector have the blobs of a checkpoint."""
        name = CheckpointName.parse(request.name)
        await self._database.write(lambda connection: store.remove_uses(connection, str(name)))
        return pb.BlobHold(name=str(name))
