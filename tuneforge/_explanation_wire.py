"""Explanations, simulations and promises: message -> value."""

from tuneforge import _wire
from tuneforge.explanation_values import (
    Blocker,
    BlockerReason,
    DelayedJob,
    DisplacedJob,
    Forecast,
    ForecastCalibration,
    ForecastEvent,
    ForecastOutcome,
    ForecastSource,
    JobExplanation,
    JobSimulation,
    NodeFinding,
    Preemptor,
    QueuePosition,
    RunProgress,
    TimeInterval,
    forecast_from_proto,
)
from tuneforge.v1 import explanations_pb2 as pb


def explanation_from_proto(message: pb.JobExplanation) -> JobExplanation:
    """Converts why a job is in its state, and what comes next."""
    return JobExplanation(
        name=message.name,
        state=message.state,
        reason=message.reason,
        summary=message.summary,
        blockers=tuple(map(_blocker, message.blockers)),
        position=_position(message.position) if message.HasField("position") else None,
        forecast=forecast_from_proto(message.forecast) if message.HasField("forecast") else None,
        progress=_progress(message.progress) if message.HasField("progress") else None,
        preemptors=tuple(Preemptor(job=each.job, why=each.why, is_due=each.is_due) for each in message.preemptors),
        nodes=tuple(map(_finding, message.nodes)),
        observe_time=_wire.instant(message.observe_time),
        num_may_overtake=message.num_may_overtake,
    )


def simulation_from_proto(message: pb.JobSimulation) -> JobSimulation:
    """Converts what would become of a job."""
    return JobSimulation(
        forecast=forecast_from_proto(message.forecast),
        nodes=tuple(message.nodes),
        displaced=tuple(
            DisplacedJob(job=each.job, costs_device_seconds=each.costs_device_seconds) for each in message.displaced
        ),
        delayed=tuple(
            DelayedJob(
                job=each.job,
                delay_seconds=each.delay_seconds,
                end_before=_wire.instant(each.end_before),
                end_after=_wire.instant(each.end_after),
            )
            for each in message.delayed
        ),
        num_delayed=message.num_delayed,
        blockers=tuple(map(_blocker, message.blockers)),
        position=_position(message.position) if message.HasField("position") else None,
        nodes_checked=tuple(map(_finding, message.nodes_checked)),
    )


def promise_from_proto(message: pb.Forecast) -> Forecast:
    """Converts a promise and what became of it."""
    told = message.told
    return Forecast(
        job=message.job,
        event=_wire.word(ForecastEvent, pb.ForecastEvent.DESCRIPTOR, message.event),
        source=_wire.word(ForecastSource, pb.ForecastSource.DESCRIPTOR, message.source),
        make_time=_wire.instant(message.make_time),
        told=TimeInterval(
            expected=_wire.instant(told.expected),
            earliest=_wire.instant(told.earliest),
            latest=_wire.instant(told.latest),
        ),
        real_time=_wire.instant_or_none(message.real_time),
        outcome=_wire.word(ForecastOutcome, pb.ForecastOutcome.DESCRIPTOR, message.outcome),
    )


def worth_from_proto(message: pb.ForecastCalibration) -> ForecastCalibration:
    """Converts how good promises were."""
    return ForecastCalibration(
        event=_wire.word(ForecastEvent, pb.ForecastEvent.DESCRIPTOR, message.event),
        decided=message.decided,
        kept_share=message.kept_share,
        median_ratio=message.median_ratio,
        low_ratio=message.low_ratio,
        high_ratio=message.high_ratio,
        is_applied=message.is_applied,
    )


def _blocker(message: pb.Blocker) -> Blocker:
    return Blocker(
        reason=_wire.word(BlockerReason, pb.BlockerReason.DESCRIPTOR, message.reason),
        message=message.message,
        cure=message.cure,
        jobs=tuple(message.jobs),
        num_jobs=message.num_jobs,
    )


def _position(message: pb.QueuePosition) -> QueuePosition:
    return QueuePosition(
        position=message.position,
        waiting=message.waiting,
        position_in_project=message.position_in_project,
        waiting_in_project=message.waiting_in_project,
        ahead=tuple(message.ahead),
        priority=message.priority,
        is_over_share=message.is_over_share,
        level=message.level,
        attained_device_seconds=message.attained_device_seconds,
        project_usage=message.project_usage,
        words=message.words,
    )


def _progress(message: pb.RunProgress) -> RunProgress:
    return RunProgress(
        step=message.step,
        total_steps=message.total_steps,
        step_seconds=message.step_seconds,
        step_seconds_low=message.step_seconds_low,
        step_seconds_high=message.step_seconds_high,
        steps_measured=message.steps_measured,
        nodes=tuple(message.nodes),
        stop_costs_device_seconds=message.stop_costs_device_seconds,
    )


def _finding(message: pb.NodeFinding) -> NodeFinding:
    return NodeFinding(
        node=message.node,
        could_hold=message.could_hold,
        why_not=message.why_not,
        free_slots=message.free_slots,
        slots=message.slots,
        missing_bytes=message.missing_bytes,
    )
