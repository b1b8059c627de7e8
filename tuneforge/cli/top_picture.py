"""The picture of `tuneforge top`: a scene and a width -> what rich draws. Nothing is asked of anybody here."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuneforge.cli.output import clock, printable, short, size
from tuneforge.cli.progress import Progress
from tuneforge.cli.top_scene import Scene
from tuneforge.explanation_values import TimeInterval
from tuneforge.job_values import Job
from tuneforge.nodes import Node

_BARS = "▁▂▃▄▅▆▇█"
_SPARK = 12
"""Characters of a curve of losses."""
_STYLES = {"READY": "green", "RUNNING": "cyan", "UNREACHABLE": "red", "DRAINING": "yellow", "PAUSED": "yellow"}
_SENTENCES = ("why", "held")
"""Columns of sentences, which are cut before any other."""
Column = tuple[str, int, bool]
"""Heading, width of the terminal from which on it is shown, and whether it is a number."""


def draw(scene: Scene, width: int, height: int | None = None) -> RenderableType:
    """Returns the picture.

    Args:
        scene: The moment.
        width: Of the terminal in characters; columns go where it is narrow.
        height: Of the terminal in lines; lists are cut to it. None: they are not.
    """
    running, waiting = scene.running, scene.waiting
    rows = _shares_of_height(height, [len(scene.nodes), len(scene.queues), len(running), len(waiting)])
    parts: list[RenderableType] = [_head(scene)]
    if scene.problem:
        since = clock((scene.time - scene.problem_since).total_seconds()) if scene.problem_since else ""
        text = f" {printable(scene.problem)}; trying again for {since}; what stands below is older"
        parts.append(Text(text, style="yellow", no_wrap=True, overflow="ellipsis"))
    parts.append(_nodes(scene, width, rows[0]))
    if scene.queues:
        parts.append(_projects(scene, width, rows[1]))
    parts.append(_running(scene, running, width, rows[2]))
    parts.append(_waiting(scene, waiting, width, rows[3]))
    return Group(*parts)


def _shares_of_height(height: int | None, wanted: Sequence[int]) -> list[int]:
    """Returns how many rows each list gets; the rest of a list is counted in one line."""
    if height is None:
        return [max(1, each) for each in wanted]
    left = max(4, height - 3 - 2 * len(wanted))  # headings, and lines that count the rest
    rows = [0] * len(wanted)
    while left > 0 and any(have < want for have, want in zip(rows, wanted, strict=True)):
        for index, want in enumerate(wanted):
            if left > 0 and rows[index] < want:
                rows[index] += 1
                left -= 1
    return [max(1, each) for each in rows]


def _head(scene: Scene) -> Text:
    slots = sum(node.slots for node in scene.nodes)
    used = sum(len(node.attempts) for node in scene.nodes)
    ready = sum(node.state == "READY" for node in scene.nodes)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("tuneforge top", style="bold")
    text.append(f"  {scene.time.astimezone():%H:%M:%S}  {scene.project} at {scene.scheduler}")
    text.append(f"  nodes {ready}/{len(scene.nodes)}  slots {used}/{slots}", style="cyan")
    text.append(f"  running {len(scene.running)}  waiting {len(scene.waiting)}", style="cyan")
    if in_vain := sum(job.has_no_start_in_sight for job in scene.waiting):
        text.append(f", {in_vain} with no start in sight", style="yellow")
    return text


def _table(title: str, columns: Sequence[Column], width: int) -> tuple[Table, list[int]]:
    """Returns an empty table and which of the columns it has."""
    shown = [index for index, (_, least, _) in enumerate(columns) if width >= least]
    has_sentence = any(columns[index][0] in _SENTENCES for index in shown)  # it gets what the others leave
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1),
        expand=has_sentence,
    )  # fmt: skip
    for index in shown:
        heading, _, is_number = columns[index]
        table.add_column(
            heading.upper(),
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            header_style="bright_black",
            ratio=1 if heading in _SENTENCES else None,
        )
    return table, shown


def _fill(table: Table, shown: Sequence[int], rows: Sequence[Sequence[str | Text]], most: int, nothing: str) -> None:
    for row in rows[:most]:
        table.add_row(*(row[index] for index in shown))
    if not rows:
        table.add_row(Text(nothing, style="bright_black"), *[""] * (len(shown) - 1))
    elif len(rows) > most:
        table.add_row(Text(f"and {len(rows) - most} more", style="bright_black"), *[""] * (len(shown) - 1))


def _nodes(scene: Scene, width: int, most: int) -> Table:
    table, shown = _table(
        "nodes", (("node", 0, False), ("state", 0, False), ("devices", 70, False), ("slots", 0, True),
                  ("memory", 90, True), ("used", 60, False)), width,
    )  # fmt: skip
    rows = [
        (
            printable(short(node.name)),
            _styled(node.state),
            printable(_devices(node)),
            f"{len(node.attempts)}/{node.slots}",
            size(sum(device.memory_bytes for device in node.devices) or node.memory_bytes),
            _used(node, scene),
        )
        for node in scene.nodes
    ]
    _fill(table, shown, rows, most, "none; start a trainer")
    return table


def _devices(node: Node) -> str:
    models = [device.model for device in node.devices]
    if not models:
        return f"CPU, {node.cpu_millis / 1000:g} cores"
    return ", ".join(f"{models.count(model)} x {model}" for model in dict.fromkeys(models))


def _used(node: Node, scene: Scene) -> str:
    """Returns what the newest samples of the jobs on a node say; empty: none has come."""
    found = []
    for attempt in node.attempts:
        progress = scene.progress.get(attempt.partition("/attempts/")[0])
        sample = progress.device if progress is not None else None
        if sample is None:
            continue
        found += [
            f"GPU {device.utilization_percent:.0f} % {size(device.memory_used_bytes)}" for device in sample.devices
        ]
        if not sample.devices:
            found.append(f"CPU {sample.cpu_percent:.0f} % {size(sample.memory_bytes)}")
    return ", ".join(found)


def _projects(scene: Scene, width: int, most: int) -> Table:
    table, shown = _table(
        "projects", (("project", 0, False), ("weight", 60, True), ("share", 0, True), ("of", 0, True),
                     ("devices", 0, True), ("running", 70, True), ("waiting", 70, True), ("held", 90, False)), width,
    )  # fmt: skip
    rows = [
        (
            printable(queue.project),
            f"{queue.weight:g}",
            f"{queue.status.share:.0%}",
            f"{queue.status.target_share:.0%}",
            f"{queue.status.devices_held}" + (f"/{queue.quota.max_devices}" if queue.quota.max_devices else ""),
            str(queue.status.running_jobs),
            str(queue.status.waiting_jobs),
            Text(printable(queue.status.hold), style="yellow"),
        )
        for queue in sorted(scene.queues, key=lambda each: (-each.status.share, each.name))
    ]
    _fill(table, shown, rows, most, "none")
    return table


def _running(scene: Scene, jobs: Sequence[Job], width: int, most: int) -> Table:
    table, shown = _table(
        "running", (("job", 0, False), ("state", 80, False), ("step", 0, True), ("loss", 34, True), ("", 70, False),
                    ("tokens/s", 90, True), ("ends in", 0, True), ("to", 100, False)), width,
    )  # fmt: skip
    rows = []
    for job in jobs:
        progress = scene.progress.get(job.name, Progress(name=job.name))
        last = progress.last
        end = job.forecast.end if job.forecast is not None else None
        step = max(job.step, progress.step)
        total = progress.total_steps or job.total_steps
        rows.append(
            (
                printable(job.id),
                _styled(job.state),
                f"{step}/{total}" if total else str(step),
                f"{last.loss:.4g}" if last is not None else "-",
                Text(spark([loss for _, loss in progress.losses]), style="cyan"),
                f"{last.tokens_per_second:.0f}" if last is not None else "-",
                _until(end, scene.time),
                _span(end, scene.time),
            )
        )
    _fill(table, shown, rows, most, "nothing runs")
    return table


def _waiting(scene: Scene, jobs: Sequence[Job], width: int, most: int) -> Table:
    table, shown = _table(
        "queue", (("job", 0, False), ("class", 90, False), ("state", 60, False), ("waits", 70, True),
                  ("starts in", 0, True), ("why", 50, False)), width,
    )  # fmt: skip
    rows = []
    for job in jobs:
        found = scene.explanations.get(job.name)
        why = found.blockers[0].message if found is not None and found.blockers else ""
        if not why and job.forecast is not None and job.has_no_start_in_sight:
            why = job.forecast.why
        if not why and job.last_change is not None:
            why = job.last_change.message
        start = job.forecast.start if job.forecast is not None else None
        rows.append(
            (
                printable(job.id),
                job.scheduling.priority.upper(),
                _styled(job.state),
                clock((scene.time - (job.queued_time or job.create_time)).total_seconds()),
                _until(start, scene.time),
                printable(why),
            )
        )
    _fill(table, shown, rows, most, "nothing waits")
    return table


def _styled(state: str) -> Text:
    return Text(str(state), style=_STYLES.get(str(state), ""))


def _until(found: TimeInterval | None, now: datetime) -> str:
    return "-" if found is None else clock((found.expected - now).total_seconds())


def _span(found: TimeInterval | None, now: datetime) -> str:
    if found is None:
        return ""
    earliest, latest = (clock((moment - now).total_seconds()) for moment in (found.earliest, found.latest))
    return f"{earliest} to {latest}"


def spark(values: Sequence[float], width: int = _SPARK) -> str:
    """Returns a curve of one line: the values in order, in `width` characters at most, the highest as a full bar."""
    finite = [value for value in values if abs(value) < float("inf")]
    if not finite:
        return ""
    count = min(width, len(finite))
    pieces = [finite[index * len(finite) // count : (index + 1) * len(finite) // count] for index in range(count)]
    means = [sum(piece) / len(piece) for piece in pieces]
    low, high = min(means), max(means)
    if high <= low:
        return _BARS[0] * count
    return "".join(_BARS[round((mean - low) / (high - low) * (len(_BARS) - 1))] for mean in means)
