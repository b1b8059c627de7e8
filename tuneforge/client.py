"""`Client`: the suite from one place, with lazily opened channels that are reused and closed together."""

import os
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tuneforge import _short_names as names
from tuneforge._connections import Addresses, Connections
from tuneforge._transport import DEFAULT_RETRY, TransportSettings
from tuneforge.aliases import Aliases
from tuneforge.blobs import BlobClient
from tuneforge.checkpoints import Checkpoints
from tuneforge.datasets import Datasets
from tuneforge.deployments import Deployments
from tuneforge.gates import Evaluations, Gates
from tuneforge.jobs import Jobs
from tuneforge.lineage import Lineage
from tuneforge.models import Models
from tuneforge.nodes import Nodes
from tuneforge.promotions import Promotions
from tuneforge.queues import Queues
from tuneforge.recipe_client import Recipes
from tuneforge.retention import RetentionRules
from tuneforge.signing import Signing
from tuneforge.sweeps import Sweeps

_DEFAULTS = Addresses()


class Client:
    """The four services and one project.

    Nothing is connected before the first call. A client is safe to use from several threads; close it, or use `with`.

        with Client() as client:
            job = client.jobs.create("spec.json")
            for event in job.watch():
                print(event)
    """

    def __init__(
        self,
        *,
        registry: str | None = None,
        scheduler: str | None = None,
        trainer: str | None = None,
        inference: str | None = None,
        project: str | None = None,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        deadline_s: float = 30.0,
        patience_s: float = DEFAULT_RETRY.budget_s,
    ) -> None:
        """Takes what is not given from the environment, then from the defaults of the embedded suite.

        Args:
            registry: `host:port`; TUNEFORGE_REGISTRY_ADDRESS, else 127.0.0.1:7101.
            scheduler: `host:port`, or several with commas between; TUNEFORGE_SCHEDULER_ADDRESS, else 127.0.0.1:7102.
            trainer: `host:port`; TUNEFORGE_TRAINER_ADDRESS, else 127.0.0.1:7103.
            inference: `host:port`; TUNEFORGE_INFERENCE_ADDRESS, else 127.0.0.1:7104.
            project: Id of the project; TUNEFORGE_PROJECT, else `default`.
            token: Sent with each call as `authorization: Bearer ...`; TUNEFORGE_TOKEN, else none.
            ca: PEM file of the authority behind the services' certificates; TUNEFORGE_TLS_CA, else plain text.
            deadline_s: Deadline of a call that has none of its own, in seconds, > 0.
            patience_s: How long a call that nobody answers is repeated, in seconds; 0 asks once. An open watch has a
                patience of its own (`WatchOptions.give_up_after_s`).

        Raises:
            InvalidArgument: The project's id is malformed.
        """
        token = token or os.environ.get("TUNEFORGE_TOKEN") or None
        ca = ca or os.environ.get("TUNEFORGE_TLS_CA") or None
        self.project = project or os.environ.get("TUNEFORGE_PROJECT") or "default"
        names.parent(self.project)
        self._connections = Connections(
            Addresses(
                registry=_address("registry", registry, _DEFAULTS.registry),
                scheduler=_address("scheduler", scheduler, _DEFAULTS.scheduler),
                trainer=_address("trainer", trainer, _DEFAULTS.trainer),
                inference=_address("inference", inference, _DEFAULTS.inference),
            ),
            TransportSettings(token=token, ca=Path(ca) if ca else None, deadline_s=deadline_s),
            replace(DEFAULT_RETRY, budget_s=patience_s),
        )
        self.datasets = Datasets(self._connections, self.project, self.blobs)
        self.models = Models(self._connections, self.project, self.blobs)
        self.aliases = Aliases(self._connections, self.project)
        self.gates = Gates(self._connections, self.project)
        self.evaluations = Evaluations(self._connections, self.project)
        self.promotions = Promotions(self._connections, self.project)
        self.retention = RetentionRules(self._connections, self.project)
        self.lineage = Lineage(self._connections, self.project)
        self.signing = Signing(self._connections)
        self.recipes = Recipes(self._connections)
        self.jobs = Jobs(self._connections, self.project)
        self.sweeps = Sweeps(self._connections, self.project)
        self.checkpoints = Checkpoints(self._connections, self.project, self.blobs)
        self.deployments = Deployments(self._connections, self.project)
        self.nodes = Nodes(self._connections)
        self.queues = Queues(self._connections, self.project)

    @property
    def scheduler_address(self) -> str:
        """Where the scheduler is asked: `host:port`, or several with commas between."""
        return self._connections.scheduler.address

    def blobs(self) -> BlobClient:
        """Returns a client for the project's bytes by digest, on this client's channel."""
        return BlobClient(self._connections.registry.channel, self.project)

    def close(self) -> None:
        """Closes every channel; what runs on them is cancelled. Closing twice is fine."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _address(service: str, given: str | None, default: str) -> str:
    return given or os.environ.get(f"TUNEFORGE_{service.upper()}_ADDRESS") or default
