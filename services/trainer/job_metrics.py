"""The `finetuning_...` metrics of the jobs that run on this node, from the events that its agent sees anyway.

They are reckoned from what the node holds: an agent that starts again reads its spools again and shows the same. What
was acknowledged and dropped before is not counted any more, as with any counter that began anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from services.grpckit.logging import get_logger
from services.trainer.attempts import Attempt
from services.trainer.ends import AttemptState, End
from services.trainer.events import parse
from services.trainer.wire import read_start
from tuneforge.events import event_from_proto
from tuneforge.metrics.job import JobFigures, JobLabels, JobStatus, families
from tuneforge.specs.profile_documents import method_word, model_id_of
from tuneforge.v1 import trainer_pb2

JOBS_KEPT = 100
"""Jobs that have ended or left, and are still shown: a scraper comes by every minute or so."""
_SHOWN = frozenset({"step", "device", "checkpoint", "resolved", "resumed_from", "state", "outcome"})

_log = get_logger(__name__)


class NodeJobs(Collector):
    """The jobs of one node; told by its attempts, asked by `/metrics`. Belongs to the event loop."""

    def __init__(self) -> None:
        self._jobs: dict[str, JobFigures] = {}

    def saw(self, attempt: Attempt, payload: bytes) -> None:
        """Takes the next event of an attempt."""
        message = parse(payload)
        if message.WhichOneof("payload") not in _SHOWN:
            return
        try:
            self._figures(attempt).take(event_from_proto(message))
        except Exception:  # noqa: BLE001 - no figure is worth an attempt that is not followed
            _log.exception("an event is missing in the metrics", attempt=attempt.id[0], seq=message.seq)

    def ended(self, attempt: Attempt, end: End) -> None:
        """Takes that an attempt's process has ended."""
        if end.state is AttemptState.LOST:
            self._figures(attempt).lost(datetime.fromtimestamp(end.time, UTC))
        self._drop_oldest()

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics of all jobs, for a scrape."""
        for family in families(self._jobs.values()):
            # The library puts the ending of a counter's name back itself.
            metric = Metric(family.name.removesuffix("_total"), family.help, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric

    def _figures(self, attempt: Attempt) -> JobFigures:
        name = attempt.assignment.name
        job = str(name.parent)
        if job not in self._jobs:
            # Ids are unique inside a project only.
            label = name.job if name.project == "default" else f"{name.project}/{name.job}"
            self._jobs[job] = JobFigures(_labels(attempt, label))
        return self._jobs[job]

    def _drop_oldest(self) -> None:
        # What is paused has left this node too: where it goes on, the page of that node shows it.
        over = [job for job, each in self._jobs.items() if each.status.is_over or each.status is JobStatus.PAUSED]
        for job in over[: max(0, len(over) - JOBS_KEPT)]:
            del self._jobs[job]


def _labels(attempt: Attempt, job_name: str) -> JobLabels:
    request = read_start(trainer_pb2.StartAttemptRequest.FromString(attempt.folder.request.read_bytes()))
    base = request.base[-1].version if request.base else ""
    local = request.spec.base.local_path or ""
    return JobLabels(
        job_name=job_name, model_id=model_id_of(base, local.rpartition("/")[2]), method=method_word(request.spec)
    )
