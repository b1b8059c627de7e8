"""Sweeps: searches over fields of a training spec, whose trials are jobs."""

from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._resumed_stream import BROKEN_STREAM
from tuneforge._spec_input import SpecInput, read_spec
from tuneforge._sweep_input import read_plan
from tuneforge._transport import Backoff, is_retriable, new_request_id, typed_error
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.spec import FullMethod, TrainingSpec
from tuneforge.sweep_values import Importances, Sweep, Trial, sweep_from_proto, trial_from_proto
from tuneforge.v1 import sweeps_pb2 as pb


class Sweeps:
    """Sweeps of one project; `client.sweeps`. A trial is named `sweep/3`, or by its whole name."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def create(
        self,
        spec: SpecInput,
        plan: Mapping[str, Any],
        *,
        sweep_id: str = "",
        labels: Mapping[str, str] | None = None,
        validate_only: bool = False,
    ) -> Sweep:
        """Checks a sweep whole and begins it.

        Args:
            spec: What all trials have in common, as for `client.jobs.create`.
            plan: The JSON form of `SweepPlan`; what is searched may be given as `space`, e.g.
                `{"space": {"optimization.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}, "num_trials": 12}`.
            sweep_id: Empty: chosen by the server.
            labels: Of the sweep and of its trials' jobs.
            validate_only: Stores nothing; the answer has the sweep's cost.

        Raises:
            InvalidArgument: `fields` lists everything that is wrong, each with its path.
            AlreadyExists: There is a sweep of this name.
        """
        scheduler = self._connections.scheduler
        request = pb.CreateSweepRequest(
            parent=names.parent(self._project),
            sweep_id=sweep_id,
            spec=read_spec(spec, self._project),
            plan=read_plan(plan),
            labels=dict(labels or {}),
            validate_only=validate_only,
            request_id=new_request_id(),
        )
        return sweep_from_proto(scheduler.call(scheduler.stub.CreateSweep, request))

    def get(self, sweep: str) -> Sweep:
        """Returns a sweep."""
        scheduler = self._connections.scheduler
        request = pb.GetSweepRequest(name=names.sweep(self._project, sweep))
        return sweep_from_proto(scheduler.call(scheduler.stub.GetSweep, request))

    def list(self) -> Iterator[Sweep]:
        """Yields the project's sweeps, newest first."""
        scheduler = self._connections.scheduler
        request = pb.ListSweepsRequest(parent=names.parent(self._project))
        for page in scheduler.pages(scheduler.stub.ListSweeps, request):
            yield from map(sweep_from_proto, page.sweeps)

    def trials(self, sweep: str) -> Iterator[Trial]:
        """Yields the trials of a sweep by number, without the values of their metric."""
        scheduler = self._connections.scheduler
        request = pb.ListTrialsRequest(parent=names.sweep(self._project, sweep))
        for page in scheduler.pages(scheduler.stub.ListTrials, request):
            yield from map(trial_from_proto, page.trials)

    def trial(self, trial: str) -> Trial:
        """Returns a trial with all values of its metric."""
        scheduler = self._connections.scheduler
        request = pb.GetTrialRequest(name=names.trial(self._project, trial))
        return trial_from_proto(scheduler.call(scheduler.stub.GetTrial, request))

    def importances(self, sweep: str) -> Importances:
        """Says how much each parameter matters for the value (PED-ANOVA, arXiv 2304.10255)."""
        scheduler = self._connections.scheduler
        request = pb.GetSweepImportancesRequest(name=names.sweep(self._project, sweep))
        found = scheduler.call(scheduler.stub.GetSweepImportances, request)
        shares = dict(sorted(found.importances.items(), key=lambda item: -item[1]))
        return Importances(shares=shares, round=found.round, trials=found.trials)

    def watch(self, sweep: str, *, after_revision: int = 0) -> Iterator[tuple[Sweep, tuple[Trial, ...]]]:
        """Yields a sweep with those of its trials that have changed, until it has ended; restarts are survived.

        Args:
            sweep: Its name.
            after_revision: `revision` of a sweep that was seen: only what changed after it; 0: all trials at first.

        Raises:
            TuneforgeError: There is no such sweep, or the scheduler stayed away.
        """
        scheduler = self._connections.scheduler
        name, backoff, is_over = names.sweep(self._project, sweep), Backoff(scheduler.retry), False
        while not is_over:
            stream = scheduler.stub.WatchSweep(pb.WatchSweepRequest(name=name, after_revision=after_revision))
            try:
                for message in stream:
                    backoff.progress()
                    after_revision = message.sweep.revision
                    seen = sweep_from_proto(message.sweep)
                    is_over = seen.state.is_terminal
                    yield seen, tuple(map(trial_from_proto, message.trials))
            except grpc.RpcError as rpc_error:
                error = typed_error(rpc_error, scheduler.peer)
                code = rpc_error.code() if isinstance(rpc_error, grpc.Call) else None
                if not is_retriable(rpc_error) and (error.request_id or code not in BROKEN_STREAM):
                    raise error from None
                backoff.wait_or_raise(error)
            finally:
                stream.cancel()

    def cancel(self, sweep: str, *, reason: str = "") -> Sweep:
        """Stops a sweep: its open trials are cancelled, and it is CANCELLED once their devices are free.

        Raises:
            FailedPrecondition: It has ended.
        """
        scheduler = self._connections.scheduler
        name = names.sweep(self._project, sweep)
        request = pb.CancelSweepRequest(name=name, reason=reason, request_id=new_request_id())
        return sweep_from_proto(scheduler.call(scheduler.stub.CancelSweep, request))

    def pause(self, sweep: str, *, reason: str = "") -> Sweep:
        """Pauses a sweep and the jobs of its trials.

        Raises:
            FailedPrecondition: It is being stopped or has ended.
        """
        scheduler = self._connections.scheduler
        name = names.sweep(self._project, sweep)
        request = pb.PauseSweepRequest(name=name, reason=reason, request_id=new_request_id())
        return sweep_from_proto(scheduler.call(scheduler.stub.PauseSweep, request))

    def resume(self, sweep: str) -> Sweep:
        """Lets a paused sweep go on.

        Raises:
            FailedPrecondition: It is being stopped or has ended.
        """
        scheduler = self._connections.scheduler
        request = pb.ResumeSweepRequest(name=names.sweep(self._project, sweep), request_id=new_request_id())
        return sweep_from_proto(scheduler.call(scheduler.stub.ResumeSweep, request))

    def delete(self, sweep: str) -> Sweep:
        """Takes a sweep that has ended out and returns what it was; its jobs and their versions stay.

        Raises:
            FailedPrecondition: It has not ended.
        """
        scheduler = self._connections.scheduler
        request = pb.DeleteSweepRequest(name=names.sweep(self._project, sweep), request_id=new_request_id())
        return sweep_from_proto(scheduler.call(scheduler.stub.DeleteSweep, request))


def suggested_space(spec: TrainingSpec) -> dict[str, Any]:
    """Returns a space to begin with, around the defaults of a spec's method and task; other values are fine too."""
    rate = with_defaults(spec).optimization.learning_rate
    space: dict[str, Any] = {
        "optimization.learning_rate": {"low": rate / 5, "high": rate * 5, "log": True},
        "optimization.weight_decay": [0.0, 1e-5, 1e-4],
    }
    if isinstance(spec.method, FullMethod):
        space["full.freeze_layers"] = [0, 1, 2]
    elif spec.lora is not None:
        space["lora.rank" if spec.method is spec.lora else "qlora.lora.rank"] = [8, 16, 32]
    if type(spec.task).__name__ == "PreferenceTask":
        space["preference.beta"] = [0.05, 0.1, 0.2, 0.5]
    return space
