"""What a draft becomes once all that it names is found: defaults, estimate, fit and digest. Pure, and remembered.

Submits that come together mostly ask for the same thing, and all of this follows from it: the spec, what it names, what
is known of nodes and runs. They are known again as the very same objects: messages with the same content are read into
one object (`wire/`), and what is looked up at the same time is looked up once. Only the name of the job is its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.scheduler.estimating import (
    Known,
    Question,
    Rows,
    checkpoint_warnings,
    kinds_able,
    lacks,
    memories_of,
    predict,
)
from services.scheduler.fitting import Memories, Misfit, doubts, misfit, needs_of
from services.scheduler.lifecycle.training_digest import TrainingInputs, training_digest
from services.scheduler.queues.budgets import Price
from services.scheduler.records import Needs
from services.scheduler.remembering import Remembering
from services.scheduler.wire.estimates import prediction_bytes, with_advice
from services.scheduler.wire.inputs import KEPT_BYTES_MAX, DatasetFacts, ModelFacts, estimate_bytes
from services.scheduler.wire.specs import spec_bytes
from tuneforge.errors import FieldViolation
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.scheduling import Scheduling
from tuneforge.specs.spec import DataSource, FullMethod, TrainingSpec
from tuneforge.specs.validation import validate


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A spec as it was asked for, with what it names."""

    spec: TrainingSpec
    base: ModelFacts | None
    """None: it is not there yet."""
    architecture: Architecture | None
    """Of the base; None: not known yet."""
    train: DatasetFacts
    validation: DatasetFacts | None

    @property
    def things(self) -> tuple[object, ...]:
        """What it is known again by."""
        return self.spec, self.base, self.architecture, self.train, self.validation

    @property
    def is_large(self) -> bool:
        """Whether its data has so many files that it is read anew each time: to remember by it would keep each copy."""
        return len(self.train.data) + len(self.validation.data if self.validation else b"") > KEPT_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What jobs of the same draft have in common."""

    spec: TrainingSpec
    """With every default filled in and every name pinned; without `output_model` where none was asked for."""
    spec_bytes: bytes
    """The same, as it is stored."""
    needs: Needs
    problem: Misfit | None
    """Why no known node could ever hold it."""
    estimate: bytes | None
    """Serialised `MemoryEstimate`, on the first kind of device that could hold it; None: its base is not known yet."""
    resource_estimate: bytes | None
    """Serialised `ResourceEstimate` of each kind of device."""
    training_digest: str | None
    """Digest of all that the result depends on; None while its base is not there."""
    warnings: tuple[str, ...]
    """What is allowed and yet looks like a slip."""


_problems: Remembering[tuple[FieldViolation, ...]] = Remembering()
_whole: Remembering[TrainingSpec] = Remembering()
_settled: Remembering[Settled] = Remembering()


def problems_of(spec: TrainingSpec, architecture: Architecture | None) -> tuple[FieldViolation, ...]:
    """Returns what `validate` finds."""
    return _problems.of((spec, architecture), lambda: tuple(validate(spec, architecture)))


def whole_spec(found: Found) -> TrainingSpec:
    """Returns the spec with every default filled in and every name pinned."""

    def make() -> TrainingSpec:
        return with_defaults(_pinned_names(found), found.architecture)

    return make() if found.is_large else _whole.of(found.things, make)


def settle(found: Found, spec: TrainingSpec, known: Known, terms: tuple[Scheduling, Price]) -> Settled:
    """Returns what jobs of a draft have in common.

    Args:
        found: The draft's spec, with what it names.
        spec: Its `whole_spec`.
        known: What is known for it.
        terms: Where it may run, and what a device costs.
    """

    def make() -> Settled:
        return _settle(found, spec, known, terms)

    return make() if found.is_large else _settled.of((*found.things, spec, known, *terms), make)


def _settle(found: Found, spec: TrainingSpec, known: Known, terms: tuple[Scheduling, Price]) -> Settled:
    scheduling, price = terms
    architecture = found.architecture

    def memories(each: TrainingSpec) -> Memories:
        return {} if architecture is None else memories_of(each, architecture, known)

    problem = misfit(spec, known.nodes, memories, scheduling)
    needs = needs_of(spec, memories(spec), scheduling)
    estimate, resource_estimate, warnings = None, None, doubts(spec, memories(spec), scheduling, known.nodes)
    if architecture is not None:
        count = round(found.train.rows * (spec.data.train_fraction or 1.0))
        rows = Rows(count=count, characters=found.train.characters)
        question = Question(spec=spec, architecture=architecture, rows=rows, price=price)
        predictions = [predict(question, known, kind) for kind in kinds_able(spec, scheduling, known)]
        lacking = {each.kind: lacks(each, needs, known.nodes) for each in predictions}
        first, *others = sorted(predictions, key=lambda each: bool(lacking[each.kind]))
        warnings += checkpoint_warnings(spec, first)
        estimate = estimate_bytes(first.memory)
        words = problem.message if problem is not None else ""
        resource_estimate = prediction_bytes(first, words, [(each, lacking[each.kind]) for each in others])
        resource_estimate = with_advice(resource_estimate, _advice(found))
    return Settled(
        spec=spec,
        spec_bytes=spec_bytes(spec),
        needs=needs,
        problem=problem,
        estimate=estimate,
        resource_estimate=resource_estimate,
        training_digest=_training_digest(found, spec, next(iter(known.runs)).device),
        warnings=tuple(warnings),
    )


def _advice(found: Found) -> list[str]:
    """Returns what a spec may be given and is better not: a rate that was good for the weights' first run."""
    asked, before = found.spec, found.base.full_rate if found.base is not None else 0.0
    rate = asked.optimization.learning_rate
    if not isinstance(asked.method, FullMethod) or not 0 < before <= rate:
        return []
    sentence = (
        f"optimization.learning_rate is {rate:g}, and the run that made the base had {before:g}: a rate 10 to 100"
    )
    return [f"{sentence} times smaller, {before / 100:g} to {before / 10:g}, keeps more of what it learned."]


def _training_digest(found: Found, spec: TrainingSpec, device: str) -> str | None:
    if found.base is None:
        return None
    inputs = TrainingInputs(
        spec=spec,
        base_digest=found.base.ref.digest,
        train_digest=found.train.ref.digest,
        validation_digest=found.validation.ref.digest if found.validation is not None else "",
        environment=device,
    )
    return training_digest(inputs)


def _pinned_names(found: Found) -> TrainingSpec:
    """Returns the spec with aliases and newest versions replaced by what they stand for now."""
    spec, base, validation = found.spec, found.spec.base, found.validation
    if base.model and found.base is not None:
        base = replace(base, model=found.base.ref.version)
    return replace(
        spec,
        base=base,
        data=replace(
            spec.data,
            train=DataSource(dataset=found.train.ref.version),
            validation=DataSource(dataset=validation.ref.version) if validation is not None else None,
        ),
    )
