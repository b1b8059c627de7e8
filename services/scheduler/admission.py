"""Admits a job: pins what its spec names, lists everything that is wrong at once, and says whether it can ever run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from services.grpckit.errors import FieldViolation, invalid_fields
from services.scheduler.dependencies import Dependencies
from services.scheduler.dependencies import look_up as look_up_dependencies
from services.scheduler.estimating import Known, are_alike, look_up
from services.scheduler.jobs import TERMINAL, JobState, RetryPolicy
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.options import NO_OPTIONS, Options
from services.scheduler.nodes import label_problems
from services.scheduler.queues.budgets import NO_BUDGET, NO_PRICE, Budget, Price
from services.scheduler.queues.updating import budget_problems
from services.scheduler.records import Job, NewJob, Pinned
from services.scheduler.remembering import Unchanged
from services.scheduler.resolving import Problem, ResolvedBase, VersionSource, resolve_base, resolve_data
from services.scheduler.settling import Found, Settled, problems_of, settle, whole_spec
from services.scheduler.shared_asking import SharedAsking
from services.scheduler.store import jobs as job_store
from services.scheduler.wire.inputs import DatasetFacts, inputs_bytes
from services.scheduler.wire.options import retry_bytes
from services.scheduler.wire.scheduling import scheduling_from_bytes
from services.scheduler.wire.specs import spec_bytes_into, spec_from_bytes
from tuneforge.names import ID_FORM, InvalidName, JobName, ModelName, is_id, new_id
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.scheduling import DEFAULT, ENTRIES_MAX, Scheduling, scheduling_violations
from tuneforge.specs.spec import DataSource, MergeMethod, Task, TrainingSpec

PREFIX = "spec."
"""Fields of a spec are named as they stand in the request."""


USUAL_RETRIES = RetryPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a caller asks for."""

    project: str
    job_id: str
    """Empty: chosen here."""
    spec: TrainingSpec
    unknown_enums: tuple[str, ...]
    """Fields of the spec whose enum number this release does not know."""
    labels: Mapping[str, str]
    creator: str
    options: Options = NO_OPTIONS
    """What it says beside the spec."""
    from_checkpoint: str = ""
    """Checkpoint of another job to begin from; empty: the beginning."""
    budget: Budget | None = None
    """What it may spend; None: no limit."""
    message: bytes = b""
    """The spec as it came, serialised; read with `from_checkpoint`."""
    scheduling: Scheduling = DEFAULT
    has_unknown_class: bool = False
    """Whether its class of priority is none that this release knows."""
    is_new: bool = True
    """Whether it is asked for now; else it is looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Where a job starts from."""

    base: ResolvedBase | None = None
    """Set when it is there."""
    waits_for: Job | None = None
    """The job whose output it is, when that is not there yet."""
    architecture: Architecture | None = None
    architecture_version: str | None = None


_EMPTY = _Start()


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Admits jobs."""

    ledger: Ledger
    registry: VersionSource
    price: Price = NO_PRICE
    lookups: SharedAsking[Known] = field(default_factory=SharedAsking)
    known: Unchanged[Known] = field(default_factory=lambda: Unchanged(are_alike))
    retry: RetryPolicy = USUAL_RETRIES
    """The policy of jobs that say nothing of it."""

    async def admit(self, draft: Draft, *, must_fit: bool = True) -> NewJob:
        """Returns the job that a draft becomes; stores nothing.

        Args:
            draft: What a caller asks for.
            must_fit: Refuses what no known node could ever hold; else its estimate says so.

        Raises:
            ServiceError: INVALID_FIELD with every wrong field, DOES_NOT_FIT, or PEER_UNAVAILABLE.
        """
        name = JobName(draft.project, draft.job_id if is_id(draft.job_id) else new_id("job"))
        start, train, validation = await asyncio.gather(
            self._start(draft),
            self._data(draft.spec.data.train, draft.spec.task, PREFIX + "data.train.dataset"),
            self._data(draft.spec.data.validation, draft.spec.task, PREFIX + "data.validation.dataset"),
        )
        architecture = None if isinstance(start, Problem) else start.architecture
        waits = await self._waits(draft)
        problems = _own_problems(draft, architecture) + list(waits.problems)
        problems += [found.violation for found in (start, train, validation) if isinstance(found, Problem)]
        problems += _merge_problems(draft.spec, start)
        budget = draft.budget.at(self.price) if draft.budget is not None and not draft.budget.is_empty else None
        problems += budget_problems("budget", budget or NO_BUDGET, self.price)
        if problems:
            raise invalid_fields(problems)
        if isinstance(start, Problem) or isinstance(train, Problem) or isinstance(validation, Problem) or train is None:
            raise AssertionError("a problem was not listed")
        found = Found(
            spec=draft.spec,
            base=start.base.top if start.base is not None else None,
            architecture=architecture,
            train=train,
            validation=validation,
        )
        whole = whole_spec(found)
        known = await self._known(whole, architecture.class_name if architecture is not None else "", train.ref.digest)
        settled = settle(found, whole, known, (draft.scheduling, self.price))
        if settled.problem is not None and must_fit:
            raise settled.problem.error()
        return replace(
            _new_job(draft, name, settled, start, (train, validation)),
            retry=retry_bytes(draft.options.retry(self.retry)),
            budget=budget,
            waits_for=waits.unmet,
            warnings=settled.warnings,
        )

    async def architecture(self, draft: Draft) -> Architecture | None:
        """Returns the architecture of a draft's base; None where it is not known, or the base is none.

        Raises:
            ServiceError: PEER_UNAVAILABLE.
        """
        start = await self._start(draft)
        return None if isinstance(start, Problem) else start.architecture

    async def _known(self, spec: TrainingSpec, family: str, digest: str) -> Known:
        """Returns what is known for a spec, read once for all who ask for the same at the same time."""
        question = (type(spec.method), spec.compute, spec.resources.devices_per_node, family, digest)

        async def ask() -> Known:
            return self.known.of(question, await self.ledger.look(lambda db: look_up(db, spec, family, digest)))

        return await self.lookups.of(question, ask)

    async def _start(self, draft: Draft) -> _Start | Problem:
        base = draft.spec.base
        if base.model and not base.output_of_job:
            return await self._from_version(base.model, PREFIX + "base.model")
        if base.output_of_job and not base.model:
            return await self._from_job(draft.project, base.output_of_job)
        return _EMPTY  # `validate` says what is wrong

    async def _from_version(self, name: str, field: str) -> _Start | Problem:
        base = await resolve_base(self.registry, name, field)
        if isinstance(base, Problem):
            return base
        return _Start(base=base, architecture=base.top.architecture, architecture_version=base.top.ref.version)

    async def _from_job(self, project: str, name: str) -> _Start | Problem:
        field = PREFIX + "base.output_of_job"
        try:
            wanted = JobName.parse(name)
        except InvalidName as error:
            return Problem(FieldViolation(field, f"is not a job: {error}"))
        if wanted.project != project:
            return Problem(FieldViolation(field, f"is {name!r}: use a job of the same project, {project}"))
        job = await self.ledger.read(lambda connection: job_store.find(connection, wanted))
        if job is None:
            return Problem(FieldViolation(field, f"is {name!r}: there is no such job; list the project's jobs"))
        if job.state is JobState.SUCCEEDED and job.published is not None:
            return await self._from_version(job.published.version, field)
        if job.state in TERMINAL:
            return Problem(FieldViolation(field, f"is {name!r}: it ended as {job.state}, so it has no output"))
        if job.architecture_version is None:
            return _Start(waits_for=job)
        same = await resolve_base(self.registry, job.architecture_version, field)
        architecture = None if isinstance(same, Problem) else same.top.architecture
        return _Start(waits_for=job, architecture=architecture, architecture_version=job.architecture_version)

    async def _data(self, source: DataSource | None, task: Task | None, field: str) -> DatasetFacts | Problem | None:
        if source is None or not source.dataset or source.local_path:
            return None  # `validate` says what is wrong
        is_validation = field.endswith("validation.dataset")
        return await resolve_data(self.registry, source, field, task=task, is_validation=is_validation)

    async def _waits(self, draft: Draft) -> Dependencies:
        """Returns which jobs it waits for, and everything that is wrong with when and where it is to run."""
        asked, now, waits = draft.scheduling, None, Dependencies()
        if draft.is_new and asked.deadline is not None:  # by the clock that it will be held against
            now_ms = await self.ledger.read_now(lambda _, now_ms: now_ms)
            now = datetime.fromtimestamp(now_ms / 1000, UTC)
        if draft.is_new and asked.depends_on:
            waits = await self.ledger.read(
                lambda connection: look_up_dependencies(connection, draft.project, asked.depends_on[:ENTRIES_MAX])
            )
        found = list(scheduling_violations(asked, now))
        if draft.has_unknown_class:
            found.append(FieldViolation("priority", "is no class that this release knows: use LOW, NORMAL or HIGH"))
        said = (FieldViolation(f"scheduling.{each.field}", each.description) for each in found)
        return replace(waits, problems=(*said, *waits.problems))

    async def readmit(self, job: Job) -> NewJob:
        """Returns a blocked job as it would be admitted now that the output which it waits for is there.

        Raises:
            ServiceError: INVALID_FIELD or DOES_NOT_FIT: it can never run; PEER_UNAVAILABLE: ask again later.
        """
        draft = Draft(
            project=job.name.project,
            job_id=job.name.job,
            spec=spec_from_bytes(job.spec),
            unknown_enums=(),
            labels=job.labels,
            creator=job.creator,
            scheduling=scheduling_from_bytes(job.scheduling),
            is_new=False,
        )
        return await self.admit(draft)


def _own_problems(draft: Draft, architecture: Architecture | None) -> list[FieldViolation]:
    """Returns what is wrong with a draft without asking anybody."""
    problems: list[FieldViolation] = []
    if draft.job_id and not is_id(draft.job_id):
        problems.append(FieldViolation("job_id", f"is {draft.job_id[:200]!r}: use {ID_FORM}"))
    problems += label_problems("labels", draft.labels)
    problems += [FieldViolation(path, description) for path, description in draft.options.problems]
    problems += [
        FieldViolation(PREFIX + path, "has a value that this release does not know: use one that the contract names")
        for path in draft.unknown_enums
    ]
    found = problems_of(draft.spec, architecture)
    problems += [FieldViolation(PREFIX + each.field, each.description) for each in found]
    if draft.spec.output_model is not None:
        problems += _output_problems(draft.project, draft.spec.output_model)
    return problems


def _merge_problems(spec: TrainingSpec, start: _Start | Problem) -> list[FieldViolation]:
    """Returns what is wrong with a merge of what is a whole model already."""
    if not isinstance(spec.method, MergeMethod) or isinstance(start, Problem) or start.base is None:
        return []
    if start.base.top.is_adapter:
        return []
    description = f"is {start.base.top.ref.version}, a whole model: `merge` takes the version of an adapter"
    return [FieldViolation(PREFIX + "base.model", description)]


def _output_problems(project: str, name: str) -> list[FieldViolation]:
    field = PREFIX + "output.model"
    try:
        model = ModelName.parse(name)
    except InvalidName as error:
        return [FieldViolation(field, f"is not a model: {error}")]
    if model.project != project:
        return [FieldViolation(field, f"is {name!r}: use a model of the same project, {project}")]
    return []


def _new_job(
    draft: Draft,
    name: JobName,
    settled: Settled,
    start: _Start,
    data: tuple[DatasetFacts, DatasetFacts | None],
) -> NewJob:
    train, validation = data
    pinned = None
    if start.base is not None:
        pinned = Pinned(base=start.base.top.ref, inputs=inputs_bytes(start.base.layers, train, validation))
    spec = settled.spec
    output_model = spec.output_model or str(ModelName(name.project, name.job))
    return NewJob(
        name=name,
        creator=draft.creator,
        labels=dict(draft.labels),
        spec=spec_bytes_into(settled.spec_bytes, output_model),
        train=train.ref,
        validation=validation.ref if validation is not None else None,
        pinned=pinned,
        depends_on=start.waits_for.name if start.waits_for is not None else None,
        architecture_version=start.architecture_version,
        output_model=output_model,
        estimate=settled.estimate,
        resource_estimate=settled.resource_estimate,
        needs=settled.needs,
        scheduling=draft.scheduling,
        lost_after_ms=round((spec.resources.lost_after_s or 0.0) * 1000),
        keep_checkpoints=spec.checkpointing.keep_last,
        ttl_ms=draft.options.ttl_ms,
        training_digest=settled.training_digest,
    )
