"""What is kept and for how long: pins, expirations, deletions, and the registry's collector of what nothing needs."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.field_mask_pb2 import FieldMask

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections, Service
from tuneforge._transport import new_request_id
from tuneforge.v1 import datasets_pb2, models_pb2
from tuneforge.v1 import retention_pb2 as pb
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub
from tuneforge.values import Word

_COLLECT_DEADLINE_S = 600.0
"""Listing a large store takes long."""


class HolderKind(Word):
    """Why something is kept."""

    ALIAS = "ALIAS"
    """An alias names it."""
    PROMOTION = "PROMOTION"
    """It is promoted to a place."""
    VERSION = "VERSION"
    """A version was made from it, or validated on it."""
    GATE_POLICY = "GATE_POLICY"
    """A gate compares with it."""
    PIN = "PIN"
    """Somebody pinned it."""
    JOB = "JOB"
    """A job that has not ended reads it."""
    DEPLOYMENT = "DEPLOYMENT"
    """A deployment serves it."""
    UNKNOWN = "UNKNOWN"
    """Of a newer release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What needs a version, so that it cannot be deleted."""

    name: str
    """Resource name of what needs it; for a pin, the version itself. Empty: it is in a project that you may not use."""
    kind: HolderKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """That a version is to be kept, and why."""

    reason: str
    actor: str
    """Who pinned it."""
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What keeps a version, and until when."""

    name: str
    """The version."""
    pins: tuple[Pin, ...]
    expire_time: datetime | None
    """When it is deleted by itself, unless something needs it then; None: never."""
    holders: tuple[Holder, ...]
    """What needs it, at most 100 of them; while there is anything, it cannot be deleted."""
    has_more_holders: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What was deleted."""

    name: str
    delete_time: datetime
    actor: str
    """Who deleted it."""
    reason: str
    num_versions: int
    """How many versions went with it; 1 for a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedGarbage:
    """What a run of the collector freed, or would free."""

    num_expired_versions: int
    """Versions deleted because their time had come."""
    num_held_versions: int
    """Versions whose time had come, but that something needs."""
    num_uploads: int
    """Uploads given up."""
    num_blobs: int
    """Blobs, by project, that nothing needs."""
    num_contents: int
    """Stored contents removed."""
    num_orphans: int
    """Contents that nothing named, among `num_contents`."""
    freed_bytes: int
    num_failures: int
    """Contents that could not be removed now; the next run tries again."""
    validate_only: bool
    """Whether it only told."""


class VersionRetention:
    """What keeps the versions of models, or of data sets: `client.retention.models`, `client.retention.datasets`.

    A version is given as `id/3`, `id` (the newest one), a whole name, and for models as `id@alias`.
    """

    def __init__(self, connections: Connections, project: str, kind: str) -> None:
        self._connections = connections
        self._project = project
        self._is_model = kind == "models"

    @property
    def _registry(self) -> Service[RegistryServiceStub]:
        return self._connections.registry

    def get(self, version: str) -> Retention:
        """Returns what keeps a version."""
        request = pb.GetRetentionRequest(name=self._name(version))
        return _retention(self._registry.call(self._registry.stub.GetRetention, request))

    def pin(self, version: str, reason: str) -> Retention:
        """Keeps a version from deletion until it is unpinned; each reason, 1 to 200 characters, pins on its own."""
        request = pb.PinVersionRequest(name=self._name(version), reason=reason, request_id=new_request_id())
        return _retention(self._registry.call(self._registry.stub.PinVersion, request))

    def unpin(self, version: str, reason: str = "") -> Retention:
        """Removes the pin for a reason, or all pins."""
        request = pb.UnpinVersionRequest(name=self._name(version), reason=reason, request_id=new_request_id())
        return _retention(self._registry.call(self._registry.stub.UnpinVersion, request))

    def expire(self, version: str, when: datetime | None) -> Retention:
        """Sets when a version is deleted by itself.

        Args:
            version: Which.
            when: A time to come, with its time zone; None: never.

        Raises:
            ValueError: The time has no zone.
        """
        request = pb.SetExpirationRequest(name=self._name(version), request_id=new_request_id())
        if when is not None:
            if when.tzinfo is None:
                raise ValueError(f"{when} has no time zone; give e.g. datetime.now(UTC) + timedelta(days=30)")
            request.expire_time.FromDatetime(when)
        return _retention(self._registry.call(self._registry.stub.SetExpiration, request))

    def delete_version(self, version: str, *, reason: str = "") -> Deletion:
        """Deletes a version; its number is never given again, its place in lineage stays.

        Args:
            version: Which; by number or whole name, not by an alias.
            reason: Why, at most 1024 characters; kept for ever.

        Raises:
            FailedPrecondition: `IN_USE`: something needs it; the message names what.
        """
        stub, key = self._registry.stub, new_request_id()
        if self._is_model:
            model = pb.DeleteModelVersionRequest(
                name=names.model_version(self._project, version), reason=reason, request_id=key
            )
            return _deletion(self._registry.call(stub.DeleteModelVersion, model))
        dataset = pb.DeleteDatasetVersionRequest(
            name=names.dataset_version(self._project, version), reason=reason, request_id=key
        )
        return _deletion(self._registry.call(stub.DeleteDatasetVersion, dataset))

    def delete(self, name: str, *, force: bool = False, reason: str = "") -> Deletion:
        """Deletes a whole model or data set.

        Args:
            name: Its id or name.
            force: With its versions. What something needs is refused all the same.
            reason: Why, at most 1024 characters; kept for ever.

        Raises:
            FailedPrecondition: `IN_USE`: it has versions and `force` is not set, or something needs one of them.
        """
        stub, key = self._registry.stub, new_request_id()
        if self._is_model:
            model = pb.DeleteModelRequest(
                name=names.model(self._project, name), force=force, reason=reason, request_id=key
            )
            return _deletion(self._registry.call(stub.DeleteModel, model))
        dataset = pb.DeleteDatasetRequest(
            name=names.dataset(self._project, name), force=force, reason=reason, request_id=key
        )
        return _deletion(self._registry.call(stub.DeleteDataset, dataset))

    def _name(self, version: str) -> str:
        """Returns the name of the version itself, also for an alias and for the newest one."""
        stub = self._registry.stub
        name = (names.model_version if self._is_model else names.dataset_version)(self._project, version)
        if not name.endswith("/versions/latest") and "/aliases/" not in name:
            return name
        if self._is_model:
            return self._registry.call(stub.GetModelVersion, models_pb2.GetModelVersionRequest(name=name)).name
        return self._registry.call(stub.GetDatasetVersion, datasets_pb2.GetDatasetVersionRequest(name=name)).name


class RetentionRules:
    """What a project keeps, and the collector; `client.retention`."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._policy = f"projects/{project}/retentionPolicy"
        self.models = VersionRetention(connections, project, "models")
        """Of the project's models."""
        self.datasets = VersionRetention(connections, project, "datasets")
        """Of the project's data sets."""

    @property
    def _registry(self) -> Service[RegistryServiceStub]:
        return self._connections.registry

    def unfinished_uploads(self) -> timedelta | None:
        """Returns for how long the project keeps uploads that nobody goes on with; None: as the registry is set."""
        request = pb.GetRetentionPolicyRequest(name=self._policy)
        return _kept(self._registry.call(self._registry.stub.GetRetentionPolicy, request))

    def set_unfinished_uploads(self, kept: timedelta | None) -> timedelta | None:
        """Sets it, 1 minute to 90 days; None goes back to the registry's setting. Needs the role admin."""
        policy = pb.RetentionPolicy(name=self._policy)
        if kept is not None:
            policy.unfinished_uploads.FromTimedelta(kept)
        request = pb.UpdateRetentionPolicyRequest(
            policy=policy, update_mask=FieldMask(paths=["unfinished_uploads"]), request_id=new_request_id()
        )
        return _kept(self._registry.call(self._registry.stub.UpdateRetentionPolicy, request))

    def release(self, holder: str) -> int:
        """Takes back every hold of a job or a deployment whose service is gone for ever; returns how many there were.

        A service does it by itself for what has ended, and holds again what it still needs.

        Args:
            holder: Whole name of the job or the deployment, as `IN_USE` and `get` name it.
        """
        request = pb.ReleaseVersionsRequest(holder=holder)
        return self._registry.call(self._registry.stub.ReleaseVersions, request).num_released

    def collect(self, *, validate_only: bool = False) -> CollectedGarbage:
        """Frees what nothing needs, in all projects; needs the role admin. The registry does it by itself too.

        Args:
            validate_only: Only tells what would go.
        """
        request = pb.CollectGarbageRequest(validate_only=validate_only)
        stub = self._registry.stub
        message = self._registry.call(stub.CollectGarbage, request, timeout_s=_COLLECT_DEADLINE_S)
        return CollectedGarbage(**{field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields})


def _kept(policy: pb.RetentionPolicy) -> timedelta | None:
    return policy.unfinished_uploads.ToTimedelta() if policy.HasField("unfinished_uploads") else None


def _retention(message: pb.Retention) -> Retention:
    return Retention(
        name=message.name,
        pins=tuple(
            Pin(reason=pin.reason, actor=pin.actor, create_time=_wire.instant(pin.create_time)) for pin in message.pins
        ),
        expire_time=_wire.instant_or_none(message.expire_time),
        holders=tuple(
            Holder(name=holder.name, kind=_wire.word(HolderKind, pb.HolderKind.DESCRIPTOR, holder.kind))
            for holder in message.holders
        ),
        has_more_holders=message.has_more_holders,
    )


def _deletion(message: pb.Deletion) -> Deletion:
    return Deletion(
        name=message.name,
        delete_time=_wire.instant(message.delete_time),
        actor=message.actor,
        reason=message.reason,
        num_versions=message.num_versions,
    )
