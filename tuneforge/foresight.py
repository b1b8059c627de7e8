"""What jobs would take, why they wait, and what comes next: the part of `client.jobs` that changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._explanation_wire import (
    explanation_from_proto,
    promise_from_proto,
    simulation_from_proto,
    worth_from_proto,
)
from tuneforge._job_requests import put_options
from tuneforge._spec_input import SpecInput, read_spec
from tuneforge.explanation_values import Forecast, ForecastCalibration, JobExplanation, JobSimulation
from tuneforge.job_values import (
    Calibration,
    ResourceEstimate,
    calibration_from_proto,
    resource_estimate_from_proto,
)
from tuneforge.v1 import scheduler_pb2 as calls

if TYPE_CHECKING:
    from tuneforge.specs.scheduling import Scheduling


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedJob:
    """What would become of a job, and what it would take."""

    simulation: JobSimulation
    resource_estimate: ResourceEstimate


class JobForesight:
    """The calls of foresight; `Jobs` takes them over."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def estimate(self, spec: SpecInput) -> ResourceEstimate:
        """Returns what a spec would take: peak memory by part, time of a step, total time and cost, with intervals.

        A spec that no known node could hold is answered too, with `problem`.

        Raises:
            InvalidArgument: Fields of the spec are wrong; `fields` lists all of them.
        """
        scheduler = self._connections.scheduler
        request = calls.EstimateResourcesRequest(
            parent=names.parent(self._project), spec=read_spec(spec, self._project)
        )
        return resource_estimate_from_proto(scheduler.call(scheduler.stub.EstimateResources, request))

    def calibrations(self) -> Iterator[Calibration]:
        """Yields how far predictions were off, by family, method, number format and kind of device."""
        scheduler = self._connections.scheduler
        for page in scheduler.pages(scheduler.stub.ListCalibrations, calls.ListCalibrationsRequest()):
            yield from map(calibration_from_proto, page.calibrations)

    def explain(self, job: str) -> JobExplanation:
        """Returns why a job is in its state and what comes next, by id or name.

        What it waits for and what would end that, its place in the order and who is ahead, when it starts and ends, how
        far it is, who could have it stopped, and what each node says to it.

        Raises:
            NotFound: There is no such job.
        """
        scheduler = self._connections.scheduler
        request = calls.ExplainJobRequest(name=names.job(self._project, job))
        return explanation_from_proto(scheduler.call(scheduler.stub.ExplainJob, request))

    def simulate(self, spec: SpecInput, *, scheduling: "Scheduling | None" = None) -> SimulatedJob:
        """Returns what would become of a job, without creating it.

        When it would start and end, on which nodes, which running jobs would be stopped for it, and whose ends it would
        put off.

        Args:
            spec: As for `create`.
            scheduling: When and where it may run, and before whom; None: class NORMAL, at once, anywhere.

        Raises:
            InvalidArgument: Fields of the spec are wrong; `fields` lists all of them.
            FailedPrecondition: No known node could ever hold it; the message says by how much.
        """
        scheduler = self._connections.scheduler
        job = calls.CreateJobRequest(parent=names.parent(self._project), spec=read_spec(spec, self._project))
        put_options(job, None, scheduling)
        answer = scheduler.call(scheduler.stub.SimulateJob, calls.SimulateJobRequest(job=job))
        return SimulatedJob(
            simulation=simulation_from_proto(answer.simulation),
            resource_estimate=resource_estimate_from_proto(answer.resource_estimate),
        )

    def forecasts(self, job: str | None = None) -> Iterator[Forecast]:
        """Yields what was promised to the project's jobs and what became of it, newest first.

        Args:
            job: Only what was promised to this job, by id or name; None: to all of them.
        """
        scheduler = self._connections.scheduler
        request = self._forecasts_of(job)
        for page in scheduler.pages(scheduler.stub.ListForecasts, request):
            yield from map(promise_from_proto, page.forecasts)

    def forecast_calibrations(self) -> tuple[ForecastCalibration, ...]:
        """Returns how good the promises of all projects were, of starts and of ends."""
        scheduler = self._connections.scheduler
        request = self._forecasts_of(None)
        request.page_size = 1
        answer = scheduler.call(scheduler.stub.ListForecasts, request)
        return tuple(map(worth_from_proto, answer.calibrations))

    def _forecasts_of(self, job: str | None) -> calls.ListForecastsRequest:
        return calls.ListForecastsRequest(
            parent=names.parent(self._project), job=names.job(self._project, job) if job else ""
        )
