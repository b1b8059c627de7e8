"""`tuneforge jobs estimate` and `tuneforge jobs calibration`: what a spec would take, and how far that was off."""

from pathlib import Path
from typing import Any

import click

from tuneforge.cli.budgets import BUDGET_FLAGS
from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.job_options import JOB_FLAGS
from tuneforge.cli.output import clock, print_fields, print_json, print_rows, size
from tuneforge.cli.submit import read_flags, submit

NOT_FOR_A_SPEC = {"from_checkpoint", "job_id", "label", "validate_only", "watch", *BUDGET_FLAGS, *JOB_FLAGS}
"""Flags of `submit` that say nothing about what is trained."""
_PARTS = ("weights", "adapter", "gradients", "optimizer", "snapshot", "mapped", "activations", "loading", "overhead")


def _estimate(spec: Path | None, as_json: bool, **flags: Any) -> None:
    connection: Connection = click.get_current_context().obj
    unset: dict[str, Any] = dict.fromkeys(NOT_FOR_A_SPEC)
    with connection.client() as client:
        found = client.jobs.estimate(read_flags(spec, {**unset, **flags}))
    if as_json:
        print_json(found)
        return
    memory = found.memory
    parts: list[tuple[str, Any]] = []
    if memory is not None:
        taken = {part: getattr(memory, f"{part}_bytes") for part in _PARTS}
        source = f"corrected by {memory.runs} measured runs" if memory.runs else "arithmetic"
        peak = f"{size(memory.total_bytes)} ({size(memory.lowest_bytes)} to {size(memory.highest_bytes)}; {source})"
        parts = [("peak memory", peak), *((f"  {part}", size(taken[part])) for part in _PARTS if taken[part])]
        if memory.host_bytes:
            parts.append(("on the host", size(memory.host_bytes)))
    rate = f"rate of {found.rate_runs} measured runs" if found.rate_runs else "the default rate of such a device"
    print_fields(
        [
            ("device", found.device),
            *parts,
            ("steps", f"{found.steps} of {found.tokens_per_step} tokens" if found.steps else None),
            ("a step", _time(found.step_seconds, rate)),
            ("all steps", _time(found.total_seconds)),
            ("device time", _time(found.device_seconds)),
            ("energy", _span(found.energy_joules, 1 / 3.6e6, "kWh")),
            ("cost", _span(found.cost, 1.0, found.currency)),
            ("problem", found.problem or None),
            *((f"on {each.device}", _alternative(each)) for each in found.alternatives),
            ("advice", " ".join(found.advice) or None),
        ]
    )


def _alternative(found: Any) -> str:
    words = [f"a step {_time(found.step_seconds)}", found.problem]
    if found.memory is not None:
        words.insert(0, f"{size(found.memory.total_bytes)}, at most {size(found.memory.highest_bytes)}")
    return "; ".join(filter(None, words))


def _time(found: Any, source: str = "") -> str | None:
    if found is None:
        return None
    words = f"{_seconds(found.expected)} ({_seconds(found.lowest)} to {_seconds(found.highest)}"
    return f"{words}; {source})" if source else f"{words})"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 60 else clock(value)


def _span(found: Any, factor: float, unit: str) -> str | None:
    if found is None:
        return None
    expected, lowest, highest = (value * factor for value in (found.expected, found.lowest, found.highest))
    return f"{expected:.3g} {unit} ({lowest:.3g} to {highest:.3g})"


estimate = ConnectedCommand(
    "estimate",
    callback=_estimate,
    params=[param for param in submit.params if param.name not in NOT_FOR_A_SPEC],
    help="Say what a job would take, with the flags of `submit`, and make none.",
)


@click.command(cls=ConnectedCommand)
@json_option
@click.pass_obj
def calibration(connection: Connection, as_json: bool) -> None:
    """List how far predictions of memory were off, and how fast runs were."""
    with connection.client() as client:
        print_rows(
            client.jobs.calibrations(),
            [
                ("family", lambda row: row.family),
                ("method", lambda row: row.method),
                ("compute", lambda row: row.compute),
                ("device", lambda row: row.device),
                ("runs", lambda row: row.runs),
                ("real / arithmetic", lambda row: f"{row.memory_ratio.expected:.2f}"),
                ("from", lambda row: f"{row.memory_ratio.lowest:.2f}"),
                ("to", lambda row: f"{row.memory_ratio.highest:.2f}"),
                ("GFLOP/s", lambda row: f"{row.flops_per_second.expected / 1e9:.4g}"),
            ],
            as_json=as_json,
            nothing="no finished run was measured yet",
        )
