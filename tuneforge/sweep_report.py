"""The report of a sweep as one HTML file: its best trial, history, importance, parallel coordinates, every trial.

Made of what the scheduler tells anybody; the file needs nothing else and can run nothing, as that of a run.
"""

import json
from collections.abc import Mapping, Sequence

from tuneforge.report_page import Section, report_page
from tuneforge.sweep_charts import STYLE, history, importance_bars, parallel_coordinates
from tuneforge.sweep_values import Importances, Sweep, Trial


def sweep_report(sweep: Sweep, trials: Sequence[Trial], importances: Importances) -> str:
    """Returns the page.

    Args:
        sweep: The sweep.
        trials: All of its trials, by number.
        importances: How much each parameter matters.
    """
    is_maximised = sweep.plan.get("goal", {}).get("direction") == "GOAL_DIRECTION_MAXIMIZE"
    last = [each for each in trials if each.round == (sweep.best.round if sweep.best else sweep.round)]
    drawings = [history(trials, sweep.metric, is_maximised=is_maximised)]
    sections = [
        Section(title="Sweep", facts=_facts(sweep, trials)),
        Section(title="History", drawings=drawings),
        _importance(importances),
        Section(title="Parallel coordinates", drawings=[parallel_coordinates(last, sweep.metric, sweep.best)]),
        Section(title="Trials", table=_table(trials)),
        Section(title="Plan", text=json.dumps(dict(sweep.plan), indent=2, sort_keys=True)),
    ]
    return report_page(f"sweep {sweep.id}", sections, style=STYLE)


def _importance(found: Importances) -> Section:
    title = "Importance of parameters"
    if not found.shares:
        return Section(
            title=title, facts={"not known": "it takes four trials of a round that succeeded, not all alike"}
        )
    facts = {"measured over": f"{found.trials} trials of round {found.round} (PED-ANOVA)"}
    return Section(title=title, drawings=[importance_bars(found.shares)], facts=facts)


def _facts(sweep: Sweep, trials: Sequence[Trial]) -> Mapping[str, str]:
    best = sweep.best
    content = {
        "state": f"{sweep.state}: {sweep.message}",
        "compared by": sweep.metric,
        "trials": ", ".join(f"{count} {name}" for name, count in sweep.counts.items() if count),
        "points of the space": str(sweep.combinations) if sweep.combinations else "no end of them",
        "device-seconds": f"{sweep.device_seconds:.0f}",
        "saved by stopping trials": _saved(trials),
        "best trial": f"{best.number}: {best.value:.6g}" if best is not None and best.value is not None else "",
        "its parameters": parameters_text(best.parameters) if best is not None else "",
        "its job": best.job if best is not None else "",
        "its version": best.version.version if best is not None and best.version is not None else "",
        "created by": sweep.creator,
    }
    return {name: value for name, value in content.items() if value}


def _saved(trials: Sequence[Trial]) -> str:
    """Returns the steps that stopped trials did not make."""
    stopped = [each for each in trials if each.stop_step and each.total_steps]
    left = sum(each.total_steps - each.step for each in stopped)
    whole = sum(each.total_steps for each in trials)
    return f"{left} of {whole} steps" if stopped and whole else ""


def _table(trials: Sequence[Trial]) -> list[list[str]]:
    rows = [
        [
            str(each.number),
            str(each.round),
            str(each.state),
            f"{each.value:.6g}" if each.value is not None else "",
            parameters_text(each.parameters),
            each.job.rpartition("/")[2],
            each.message,
        ]
        for each in trials
    ]
    return [["trial", "round", "state", "value", "parameters", "job", "why"], *rows]


def parameters_text(parameters: Mapping[str, object]) -> str:
    """Returns parameters on one line."""
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in parameters.items()
    )
