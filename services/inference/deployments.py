"""What a deployment is, as the service keeps it."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Literal

from services.modelkit.artifacts import ArtifactKind
from tuneforge.manifest import Manifest
from tuneforge.names import DeploymentName
from tuneforge.signatures import Signature


class DeploymentState(enum.StrEnum):
    """States of a deployment, named as in the contract."""

    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One version of the stack that a deployment serves: a whole model, or an adapter on what lies below it."""

    version: str
    """Resource name of the model version."""
    kind: ArtifactKind
    manifest: Manifest
    signature: Signature | None = None
    """The registry's signature over the files; None: the registry is asked for it."""

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return self.manifest.digest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a deployment could not be loaded."""

    reason: str
    """Row of the table in `tuneforge/reason_table.py`."""
    message: str
    cure: str
    fault: Literal["user", "infrastructure"]
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A version that is served."""

    name: DeploymentName
    model: str
    """What was asked for: a version or an alias."""
    layers: tuple[Layer, ...]
    """What it resolved to: the base first, then the adapters, each trained on all below it."""
    state: DeploymentState
    template_sha256: str
    """SHA-256 of the chat template; empty until the base was loaded once."""
    failure: Failure | None
    """Set with FAILED."""
    create_time_us: int
    """Microseconds since 1970."""
    creator: str

    @property
    def base(self) -> Layer:
        """The whole model at the bottom."""
        return self.layers[0]

    @property
    def adapters(self) -> tuple[str, ...]:
        """Digests of the adapters, the lowest first."""
        return tuple(layer.digest for layer in self.layers[1:])

    def with_state(
        self, state: DeploymentState, *, template_sha256: str = "", failure: Failure | None = None
    ) -> "Deployment":
        """Returns the deployment in another state; the template's digest stays known once it is."""
        return dataclasses.replace(
            self, state=state, template_sha256=template_sha256 or self.template_sha256, failure=failure
        )
