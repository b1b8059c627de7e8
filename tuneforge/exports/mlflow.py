"""One MLflow run a job, found again by a tag; needs the extra `mlflow`.

Points that the run has are not logged again, so an export can be repeated and goes on where it broke off.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from tuneforge.exports.history import Point, Rewind
from tuneforge.job_values import Job, JobState

EXTRA = "mlflow"
JOB_TAG: Final = "tuneforge.job"
_BATCH: Final = 500
_LONGEST_VALUE: Final = 500
_STATUS: Final[Mapping[JobState, str]] = {
    JobState.SUCCEEDED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "KILLED",
}


class MlflowExport:
    """Logs a job to a tracking server; use it with `with`."""

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        """Takes the server (or `sqlite:///FILE`) and the name of the experiment, which is made when missing.

        Raises:
            ImportError: The extra is not installed.
        """
        # What is exported is for the tracking server alone.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(tracking_uri)
        self._experiment = experiment
        self._run_id = ""
        self._logged: dict[str, set[tuple[int, int, str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go; what was logged stays."""

    def begin(self, job: Job, points: Iterable[Point]) -> str:
        """Logs what is known so far and returns the id of the run."""
        from mlflow.entities import Param

        self._run_id = self._run_of(job)
        params = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in sorted(_params(job).items())]
        self._client.log_batch(self._run_id, params=params)
        self.add(list(points))
        return self._run_id

    def add(self, changes: Sequence[Point | Rewind]) -> None:
        """Logs what is new. A step that is made again is logged again: MLflow takes nothing back."""
        from mlflow.entities import Metric

        metrics = []
        for point in (each for each in changes if isinstance(each, Point)):
            name, key = point.name, (point.step, _milliseconds(point.time), repr(point.value))
            if key not in self._known(name):
                self._known(name).add(key)
                metrics.append(Metric(name, point.value, key[1], point.step))
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _BATCH])

    def end(self, job: Job) -> None:
        """Notes how the job ended, and what it published."""
        if job.version is not None:
            self._client.set_tag(self._run_id, "tuneforge.version", job.version.version)
            self._client.set_tag(self._run_id, "tuneforge.digest", job.version.digest)
        if job.failure is not None:
            self._client.set_tag(self._run_id, "tuneforge.failure", f"{job.failure.reason}: {job.failure.message}")
        end_time = _milliseconds(job.end_time) if job.end_time else None
        self._client.set_terminated(self._run_id, _STATUS.get(job.state, "FINISHED"), end_time)

    def _run_of(self, job: Job) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        runs = self._client.search_runs([experiment], f"tags.`{JOB_TAG}` = '{job.name}'", max_results=1)
        if runs:
            return str(runs[0].info.run_id)
        begin = _milliseconds(job.create_time) if job.create_time else None
        run = self._client.create_run(experiment, start_time=begin, tags={JOB_TAG: job.name}, run_name=job.id)
        return str(run.info.run_id)

    def _known(self, name: str) -> set[tuple[int, int, str]]:
        """Returns the points that the run has of a figure, asked for once."""
        if name not in self._logged:
            history = self._client.get_metric_history(self._run_id, name)
            self._logged[name] = {(each.step, each.timestamp, repr(float(each.value))) for each in history}
        return self._logged[name]


def _params(job: Job) -> dict[str, Any]:
    """Returns the spec with its places as names, `optimization.learning_rate`."""
    from google.protobuf.json_format import MessageToDict

    from tuneforge.specs.wire import spec_to_proto

    flat: dict[str, Any] = {}

    def put(path: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, each in value.items():
                put(f"{path}.{key}" if path else key, each)
        else:
            flat[path] = value

    put("", MessageToDict(spec_to_proto(job.spec), preserving_proto_field_name=True))
    return flat


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
