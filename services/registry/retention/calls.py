"""The methods of retention: pins, expirations, deletions, the collector."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from sqlalchemy import Connection

from services.grpckit.context import current
from services.registry.calls import Calls, Context
from services.registry.library import now_us
from services.registry.retention import deleting, requests, store, wire
from services.registry.retention.collector import Collector
from services.registry.retention.resources import Pin, VersionName, parse_version
from tuneforge.names import DatasetName, DatasetVersionName, ModelName, ModelVersionName
from tuneforge.v1 import retention_pb2 as pb


class RetentionCalls(Calls):
    """The methods of retention."""

    collector: Collector
    """Set by who wires the service together."""

    async def GetRetention(self, request: pb.GetRetentionRequest, context: Context) -> pb.Retention:
        """Tells what keeps a version."""
        name, sight = parse_version(request.name), current().principal.may_touch
        return wire.retention_to_proto(await self._database.read(lambda c: deleting.retention_of(c, name, sight)))

    async def PinVersion(self, request: pb.PinVersionRequest, context: Context) -> pb.Retention:
        """Pins a version."""
        name, sight = parse_version(request.name), current().principal.may_touch
        requests.check_pin(request.reason)
        pin = Pin(request.reason, current().actor, now_us())

        def change(connection: Connection) -> pb.Retention:
            store.require_version(connection, name)
            store.add_pin(connection, name, pin)
            return wire.retention_to_proto(deleting.retention_of(connection, name, sight))

        return await self._change(request, name.project, pb.Retention, change)

    async def UnpinVersion(self, request: pb.UnpinVersionRequest, context: Context) -> pb.Retention:
        """Removes pins of a version."""
        name, sight = parse_version(request.name), current().principal.may_touch

        def change(connection: Connection) -> pb.Retention:
            store.require_version(connection, name)
            store.remove_pins(connection, name, request.reason)
            return wire.retention_to_proto(deleting.retention_of(connection, name, sight))

        return await self._change(request, name.project, pb.Retention, change)

    async def SetExpiration(self, request: pb.SetExpirationRequest, context: Context) -> pb.Retention:
        """Sets when a version is deleted by itself."""
        name, sight = parse_version(request.name), current().principal.may_touch
        time_us = requests.expire_time_us(request, now_us())
        actor = current().actor

        def change(connection: Connection) -> pb.Retention:
            store.require_version(connection, name)
            store.set_expiration(connection, name, time_us, actor=actor)
            return wire.retention_to_proto(deleting.retention_of(connection, name, sight))

        return await self._change(request, name.project, pb.Retention, change)

    async def DeleteDatasetVersion(self, request: pb.DeleteDatasetVersionRequest, context: Context) -> pb.Deletion:
        """Deletes a version of a data set."""
        return await self._delete_version(request, DatasetVersionName.parse(request.name))

    async def DeleteModelVersion(self, request: pb.DeleteModelVersionRequest, context: Context) -> pb.Deletion:
        """Deletes a version of a model."""
        return await self._delete_version(request, ModelVersionName.parse(request.name))

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> pb.Deletion:
        """Deletes a data set."""
        return await self._delete_collection(request, DatasetName.parse(request.name))

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> pb.Deletion:
        """Deletes a model."""
        return await self._delete_collection(request, ModelName.parse(request.name))

    async def GetRetentionPolicy(self, request: pb.GetRetentionPolicyRequest, context: Context) -> pb.RetentionPolicy:
        """Returns a project's policy."""
        project = requests.policy_project(request.name)
        return wire.policy_to_proto(request.name, await self._database.read(lambda c: store.upload_kept_s(c, project)))

    async def UpdateRetentionPolicy(
        self, request: pb.UpdateRetentionPolicyRequest, context: Context
    ) -> pb.RetentionPolicy:
        """Sets a project's policy."""
        project = requests.policy_project(request.policy.name)
        requests.check_mask(request.update_mask.paths)
        seconds = requests.upload_kept_s(request.policy)

        def change(connection: Connection) -> pb.RetentionPolicy:
            store.set_upload_kept_s(connection, project, seconds, time_us=now_us())
            return wire.policy_to_proto(request.policy.name, seconds)

        return await self._change(request, project, pb.RetentionPolicy, change)

    async def CollectGarbage(self, request: pb.CollectGarbageRequest, context: Context) -> pb.CollectGarbageResponse:
        """Frees what nothing needs."""
        return wire.collected_to_proto(await self.collector.collect(validate_only=request.validate_only))

    async def _delete_version(
        self, request: pb.DeleteDatasetVersionRequest | pb.DeleteModelVersionRequest, name: VersionName
    ) -> pb.Deletion:
        requests.check_reason(request.reason)
        actor, time_us, sight = current().actor, now_us(), current().principal.may_touch
        return await self._change(
            request,
            name.project,
            pb.Deletion,
            lambda c: wire.deletion_to_proto(
                deleting.delete_version(c, name, actor=actor, reason=request.reason, time_us=time_us, sight=sight)
            ),
        )

    async def _delete_collection(
        self, request: pb.DeleteDatasetRequest | pb.DeleteModelRequest, name: DatasetName | ModelName
    ) -> pb.Deletion:
        requests.check_reason(request.reason)
        actor, time_us, sight = current().actor, now_us(), current().principal.may_touch
        return await self._change(
            request,
            name.project,
            pb.Deletion,
            lambda c: wire.deletion_to_proto(
                deleting.delete_collection(
                    c, name, force=request.force, actor=actor, reason=request.reason, time_us=time_us, sight=sight
                )
            ),
        )
