"""Events as plain lines or JSON, for pipes and logs."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from tuneforge.cli.output import clock, print_json, printable, short, size
from tuneforge.events import (
    AttemptOutcome,
    CheckpointDurable,
    CheckpointSaved,
    EvaluationMetrics,
    Event,
    Gap,
    LogCompacted,
    LogLine,
    Resolved,
    ResumedFrom,
    Sample,
    Stall,
    StateChange,
    StepMetrics,
    TaskMetrics,
)

_REMIND_S = 30.0


class Outage:
    """Says on stderr that a stream broke, and every 30 seconds or so how long nothing has come."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: float | None = None
        self._told_at = 0.0

    def broke(self, why: str) -> None:
        """Says why nothing comes."""
        now = self._now()
        if self._since is None:
            self._since = self._told_at = now
            click.echo(f"{why}; trying again", err=True)
        elif now - self._told_at >= _REMIND_S:
            self._told_at = now
            click.echo(f"{why}; trying again for {clock(now - self._since)}", err=True)

    def over(self) -> None:
        """Something came: the next break is another one."""
        self._since = None


class PlainView:
    """Prints a line for each event but the samples of the devices, one a second, which `--json` has."""

    def __init__(self) -> None:
        self._outage = Outage()

    def take(self, event: Event) -> None:
        """Prints one event."""
        self._outage.over()
        text = line(event)
        if text:
            click.echo(f"{event.time.astimezone():%H:%M:%S}  {event.kind:<12}  {text}")

    def broke(self, why: str) -> None:
        """Says that the stream broke and is opened again."""
        self._outage.broke(why)


class JsonView:
    """Prints each event as one JSON object on a line."""

    def __init__(self) -> None:
        self._outage = Outage()

    def take(self, event: Event) -> None:
        """Prints one event."""
        self._outage.over()
        print_json(event)

    def broke(self, why: str) -> None:
        """Says that the stream broke and is opened again."""
        self._outage.broke(why)


def line(event: Event) -> str:
    """Returns what happened in one line; empty for what is not shown."""
    describe = _LINES.get(event.kind)
    line = describe(event.payload, event.attempt) if describe and event.payload is not None else ""
    return f"{line}  (node rank {event.node_rank})" if line and event.node_rank else line


def step_line(step: StepMetrics) -> str:
    """Returns a step's figures."""
    return (
        f"{step.step}/{step.total_steps}  loss {step.loss:.4f}  grad {step.grad_norm:.3g}  lr {step.learning_rate:.2e}"
        f"  {step.tokens_per_second:.0f} tokens/s  ETA {clock(step.eta_s)}"
    )


def state_line(change: StateChange, attempt: int) -> str:
    """Returns a change of state: of the job, or of one attempt."""
    who = f"attempt {attempt}: " if attempt else ""
    arrow = f"{change.from_state} -> {change.to_state}" if change.from_state else change.to_state
    why = f"  {printable(change.message)}" if change.message else ""
    return f"{who}{arrow}  {change.reason}{why}".rstrip()


def end_line(name: str, state: str, version: str | None) -> str:
    """Returns the line that closes a watch of a job that has succeeded."""
    return f"{short(name)}: {state}, published {short(version)}" if version else f"{short(name)}: {state}"


def _evaluation(evaluation: EvaluationMetrics, _attempt: int) -> str:
    best = "  (best so far)" if evaluation.is_best else ""
    return f"step {evaluation.step}  loss {evaluation.loss:.4f} over {evaluation.rows} rows{best}"


def _task(task: TaskMetrics, _attempt: int) -> str:
    values = "  ".join(f"{name} {value:.4g}" for name, value in task.values.items())
    return f"step {task.step}{'  validation' if task.is_validation else ''}  {values}"


def _log(log: LogLine, _attempt: int) -> str:
    return f"{log.severity}  {printable(log.message)}"


def _checkpoint(checkpoint: CheckpointSaved, _attempt: int) -> str:
    return f"step {checkpoint.step}  {size(checkpoint.size_bytes)}  stood still {checkpoint.blocked_seconds:.2f} s"


def _durable(checkpoint: CheckpointDurable, _attempt: int) -> str:
    return f"step {checkpoint.step}  in the blob store  {checkpoint.seconds:.2f} s after it was saved"


def _sample(sample: Sample, _attempt: int) -> str:
    return f"step {sample.step}  {printable(f'{sample.prompt!r} -> {sample.completion!r}')}"


def _resumed_from(resumed: ResumedFrom, attempt: int) -> str:
    return f"attempt {attempt} goes on after step {resumed.step}, saved by attempt {resumed.attempt}"


def _gap(gap: Gap, _attempt: int) -> str:
    return f"{gap.dropped} {gap.kind} events were dropped: the node's spool was full"


def _resolved(resolved: Resolved, _attempt: int) -> str:
    share = f"{resolved.trainable_parameters:,} of {resolved.total_parameters:,} weights move"
    return f"{share}, {resolved.rows} rows, {resolved.rows_dropped} left out"


def _compacted(gone: LogCompacted, _attempt: int) -> str:
    return f"the log was thinned out: of the events up to {gone.through_job_seq}, {gone.removed_events} are gone"


def _outcome(outcome: AttemptOutcome, attempt: int) -> str:
    failure = f"  {outcome.failure.reason}: {printable(outcome.failure.message)}" if outcome.failure else ""
    return f"attempt {attempt} {outcome.result} after step {outcome.step}{failure}"


def _stall(stall: Stall, _attempt: int) -> str:
    stacks = "".join(f"\n    {printable(line)}" for line in stall.stacks.splitlines())
    place = f" on {printable(short(stall.node))}" if stall.node else ""
    return f"attempt {stall.attempt}{place}: {printable(stall.message)}{stacks}"


_LINES: Final[Mapping[str, Callable[[Any, int], str]]] = {
    "step": lambda step, _attempt: step_line(step),
    "state": state_line,
    "evaluation": _evaluation,
    "task": _task,
    "log": _log,
    "checkpoint": _checkpoint,
    "checkpoint_durable": _durable,
    "sample": _sample,
    "resumed_from": _resumed_from,
    "gap": _gap,
    "compacted": _compacted,
    "resolved": _resolved,
    "outcome": _outcome,
    "stall": _stall,
}
"""Kind of event -> its line, from payload and attempt. `device` has none: one a second is for `--json`."""
