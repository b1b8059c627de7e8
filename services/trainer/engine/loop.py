"""The training loop, on one page. Read this first: every other module of the engine is one of its words.

It speaks four verbs (forward_backward, optim_step, save_state, sample) and never touches a tensor. All of its own state
is `Progress` (`run.py`), so that a resumed run cannot be told from an unbroken one.
"""

import time
from collections.abc import Callable

from services.trainer.engine import guards, reports
from services.trainer.engine.curve import add_point
from services.trainer.engine.losses import StepLoss
from services.trainer.engine.run import Progress, Run
from services.trainer.engine.saving import Saves
from services.trainer.engine.schedules import learning_rate
from services.trainer.engine.training_task import EventSink, RunResult, StopRequest
from services.trainer.engine.verbs import Engine
from tuneforge.v1 import events_pb2


def train_loop(
    run: Run, engine: Engine, progress: Progress, sink: EventSink, stop: Callable[[], StopRequest | None]
) -> RunResult:
    """Trains from the step that `progress` tells to the last one, or until it is asked to stop.

    Raises:
        TrainingFault: A guard ends the run (`guards`, and the engine's own), or the state that was asked for cannot be
            saved.
    """
    first_step, begun = progress.step, time.monotonic()
    use_best, keep_best = run.spec.evaluation.use_best, run.spec.checkpointing.keep_best
    saves = Saves(engine=engine, sink=sink, facts=run.facts, keeps_best=use_best or keep_best, step=progress.step)
    while not _is_over(run, progress):
        match stop():
            case StopRequest.CANCEL:
                return RunResult.CANCELLED
            case StopRequest.CHECKPOINT:
                saves.save_now(progress)
                return RunResult.INTERRUPTED
        step, started = progress.step + 1, time.monotonic()
        rows = [run.corpus.examples[row] for row in run.plan.rows_of(step)]
        rate = learning_rate(step, run.plan.total_steps, run.spec.optimization)
        loss = engine.forward_backward(rows)
        grad_norm = engine.optim_step(rate)
        seconds = time.monotonic() - started
        _advance(progress, loss, seconds)
        add_point(progress.curve, [step, loss.loss, rate, grad_norm, loss.tokens])
        # The mean over this attempt, with evaluations and checkpoints in it: they will come again.
        eta_s = (time.monotonic() - begun) / (step - first_step) * (run.plan.total_steps - step)
        sink.emit(
            reports.step_metrics(
                reports.StepReport(
                    step=step,
                    total_steps=run.plan.total_steps,
                    epoch=run.plan.epochs_after(step),
                    loss=loss.loss,
                    learning_rate=rate,
                    grad_norm=grad_norm,
                    tokens=loss.tokens,
                    supervised_tokens=loss.supervised_tokens,
                    seconds=seconds,
                    eta_s=eta_s,
                    row_ids=[row.id for row in rows],
                )
            )
        )
        guards.check_step(run.spec.guards, progress, loss.loss, grad_norm)
        reports.task_metrics(sink, step, loss.figures, len(rows))
        if _is_due(run.spec.evaluation.every_steps, step) or step == run.plan.total_steps:
            _measure(run, engine, progress, sink)
            if progress.best_step == step and saves.keeps_best:
                saves.begin(progress, is_required=use_best)
        if _is_due(run.spec.checkpointing.every_steps, step):
            saves.begin(progress)
        saves.report()
    saves.report(wait=True)
    if progress.step < run.last_step:
        reports.note(sink, f"Stopped early: the validation loss was lowest after step {progress.best_step}.")
    return RunResult.SUCCEEDED


def _is_over(run: Run, progress: Progress) -> bool:
    """Tells whether the run has come to its end; a function of the progress alone, so a resume decides the same."""
    patience = run.spec.evaluation.patience
    return progress.step >= run.last_step or 0 < patience <= progress.evaluations_since_best


def _advance(progress: Progress, loss: StepLoss, seconds: float) -> None:
    progress.step += 1
    progress.tokens += loss.tokens
    progress.computed_tokens += loss.computed_tokens
    progress.train_seconds += seconds
    progress.loss = loss.loss


def _is_due(every_steps: int | None, step: int) -> bool:
    return bool(every_steps) and step % (every_steps or 1) == 0


def _measure(run: Run, engine: Engine, progress: Progress, sink: EventSink) -> None:
    if run.validation:
        found, rows = engine.evaluate(run.validation.examples), len(run.validation.examples)
        _compare(progress, found.loss, run.spec.evaluation.min_improvement)
        sink.emit(
            events_pb2.EvaluationMetrics(
                step=progress.step,
                loss=found.loss,
                supervised_tokens=found.supervised_tokens,
                rows=rows,
                is_best=progress.best_step == progress.step,
            )
        )
        reports.task_metrics(sink, progress.step, found.figures, rows, is_validation=True)
    completions = engine.sample([ids for _, ids in run.prompts], run.spec.evaluation.max_new_tokens)
    progress.completions = [run.decode(completion) for completion in completions]
    for (prompt, _), completion in zip(run.prompts, progress.completions, strict=True):
        sink.emit(events_pb2.Sample(step=progress.step, prompt=prompt, completion=completion))


def _compare(progress: Progress, loss: float, min_improvement: float) -> None:
    """Notes a validation loss beside the lowest one."""
    progress.evaluation_loss = loss
    progress.evaluations.append((progress.step, loss))
    if progress.best_loss is None or loss < progress.best_loss - min_improvement:
        progress.best_loss, progress.best_step, progress.evaluations_since_best = loss, progress.step, 0
    else:
        progress.evaluations_since_best += 1
