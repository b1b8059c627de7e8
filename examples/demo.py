"""The main job end to end: rows and a base model in, a tuned, registered, promoted and served version out.

    make demo        (or: python -m examples.demo)

Starts the four services as processes of their own, registers SmolLM2-135M-Instruct and the support-routing rows,
tunes with LoRA while the events stream in, moves the alias `production` to the new version, serves it beside its base
from one set of weights, and asks both the same held-out questions. Leaves `.tuneforge/demo/report.json` and
`report.html`; exits non-zero when tuning did not help.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from examples import smollm2
from examples.scoring import Score, score
from services.launcher import SERVICES, StartFailed, Suite
from services.stores.ports import free_ports
from tuneforge import Client, Deployment, GenerationOptions, JobHandle, TuneforgeError, charts
from tuneforge.events import DeviceMetrics, EvaluationMetrics, Sample, StepMetrics

FOLDER = Path(".tuneforge/demo")
ROWS = Path("examples/support_routing")
SPEC = Path("examples/support_routing/spec.json")
MODEL = "support-router"
GAIN_NEEDED = 0.40
LINE_EVERY_S = 5.0


@dataclass(slots=True)
class Curves:
    """What the event stream told, for the page and the report."""

    losses: list[tuple[float, float]] = field(default_factory=list)
    """(step, mean loss of the step)."""
    cpu: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the submit, percent of one core)."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the submit, resident bytes / 1e9)."""
    seconds_to_first_step: float = 0.0
    """From the submit to the first finished optimiser step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the demo found; `report.json`."""

    base_exact_match: float
    tuned_exact_match: float
    base_field_accuracy: dict[str, float]
    tuned_field_accuracy: dict[str, float]
    heldout_rows: int
    first_loss: float
    last_loss: float
    seconds_after_setup: float
    seconds_to_first_step: float
    seconds_training: float
    steps: int
    job: str
    version: str
    digest: str
    base_version: str
    base_digest: str
    dataset_version: str


def main() -> int:
    """Runs the demo; returns the exit code."""
    suite = Suite(data=FOLDER.absolute() / "data", ports=dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True)))
    try:
        weights = smollm2.ensure()
        began = time.monotonic()
        shutil.rmtree(suite.data, ignore_errors=True)
        with _running(suite), _connect(suite) as client:
            return _run(client, weights, began)
    except StartFailed as error:
        print(f"demo: {error}", file=sys.stderr)
    except TuneforgeError as error:
        print(f"demo: {error}\nlogs are in {suite.data / 'logs'}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nstopped; nothing is left running", file=sys.stderr)
        return 130
    return 1


@contextmanager
def _running(suite: Suite) -> Iterator[None]:
    """Holds the services; SIGTERM ends the demo as Ctrl-C does, and a second one does not tear the ending."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_once)
    try:
        _say("starting registry, scheduler, trainer and inference")
        suite.start()
        yield
    finally:
        suite.stop()


def _stop_once(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _connect(suite: Suite) -> Client:
    registry, scheduler, trainer, inference = map(suite.address, SERVICES)
    return Client(registry=registry, scheduler=scheduler, trainer=trainer, inference=inference)


def _run(client: Client, weights: Path, began: float) -> int:
    _say(f"registering the base model from {weights}")
    base = client.models.import_folder(weights, "smollm2-135m-instruct")
    rows = client.datasets.upload(ROWS / "train.jsonl", "support-routing")
    _say(f"registered {base.name} ({base.manifest.digest[:12]}) and {rows.rows} rows as {rows.name}")

    heldout = [json.loads(line)["messages"] for line in (ROWS / "heldout.jsonl").read_text().splitlines()]
    _say(f"asking the base {len(heldout)} held-out questions")
    base_answers = _answers(client, client.deployments.create("base", base.name), heldout)

    _say("tuning with LoRA; every event is streamed as it happens")
    submitted = time.monotonic()
    job = client.jobs.create(SPEC, job_id="support-router-1")
    curves = _follow(job, submitted)
    result = job.result(timeout_s=60)
    if result.version is None:
        raise AssertionError("a job that succeeded names its version")
    seconds_training = time.monotonic() - submitted
    _say(f"published {result.version.version} ({result.version.digest[:12]})")

    client.aliases.set(MODEL, "production", result.version.version, reason="the demo's held-out rows decide")
    tuned = client.deployments.create("router", f"{MODEL}@production")
    _say("production points to it; asking it the same questions")
    tuned_answers = _answers(client, tuned, heldout)

    expected = [row[-1]["content"] for row in heldout]
    before, after = score(base_answers, expected), score(tuned_answers, expected)
    report = Report(
        base_exact_match=before.exact_match,
        tuned_exact_match=after.exact_match,
        base_field_accuracy=before.field_accuracy,
        tuned_field_accuracy=after.field_accuracy,
        heldout_rows=len(heldout),
        first_loss=curves.losses[0][1],
        last_loss=curves.losses[-1][1],
        seconds_after_setup=round(time.monotonic() - began, 1),
        seconds_to_first_step=round(curves.seconds_to_first_step, 2),
        seconds_training=round(seconds_training, 1),
        steps=len(curves.losses),
        job=job.name,
        version=result.version.version,
        digest=result.version.digest,
        base_version=base.name,
        base_digest=base.manifest.digest,
        dataset_version=rows.name,
    )
    _write(report, curves, heldout, base_answers, tuned_answers)
    return _verdict(report, before, after)


def _answers(client: Client, deployment: Deployment, heldout: Sequence[list[dict[str, str]]]) -> list[str]:
    """Returns a deployment's greedy answer to each question, computed as one batch."""
    completions = client.deployments.generate(
        deployment.name,
        conversations=[row[:-1] for row in heldout[:64]],
        options=GenerationOptions(max_new_tokens=40),
    )
    if len(heldout) > 64:
        return [each.text.strip() for each in completions] + _answers(client, deployment, heldout[64:])
    return [each.text.strip() for each in completions]


def _follow(job: JobHandle, submitted: float) -> Curves:
    """Watches the job to its end; prints a line every few seconds."""
    curves = Curves()
    last_line = 0.0
    for event in job.watch():
        now = time.monotonic() - submitted
        match event.payload:
            case StepMetrics() as step:
                if not curves.losses:
                    curves.seconds_to_first_step = now
                curves.losses.append((float(step.step), step.loss))
                if now - last_line >= LINE_EVERY_S or step.step == step.total_steps:
                    last_line = now
                    rate = f"{step.tokens_per_second:.0f} tokens/s"
                    print(
                        f"  step {step.step:>4}/{step.total_steps}  loss {step.loss:.4f}  {rate}  "
                        f"about {step.eta_s:.0f} s left",
                        flush=True,
                    )
            case DeviceMetrics() as device:
                curves.cpu.append((now, device.cpu_percent))
                curves.memory.append((now, device.memory_bytes / 1e9))
            case EvaluationMetrics() as evaluation:
                print(f"  validation loss {evaluation.loss:.4f}", flush=True)
            case Sample() as sample:
                print(f"  sample at step {sample.step}: {sample.completion!r}", flush=True)
    return curves


def _write(
    report: Report, curves: Curves, heldout: Sequence[list[dict[str, str]]], before: list[str], after: list[str]
) -> None:
    (FOLDER / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    drawn = [
        charts.Chart(title="Loss of each step", x_label="steps", y_label="nats a token", points=curves.losses),
        charts.Chart(title="Processor use of the worker", x_label="s", y_label="% of one core", points=curves.cpu),
        charts.Chart(title="Memory of the worker", x_label="s", y_label="GB", points=curves.memory),
    ]
    rows = [("message", "expected", "base", "tuned")]
    rows += [
        (row[-2]["content"], row[-1]["content"], was, now) for row, was, now in zip(heldout, before, after, strict=True)
    ]
    facts = {key: str(value) for key, value in asdict(report).items()}
    (FOLDER / "report.html").write_text(charts.page("Tuneforge demo: support routing", facts, drawn, rows))


def _verdict(report: Report, before: Score, after: Score) -> int:
    print(f"\n  {'held-out rows':<16}{'base':>8}{'tuned':>8}")
    for key in after.field_accuracy:
        print(f"  {key:<16}{before.field_accuracy[key]:>8.0%}{after.field_accuracy[key]:>8.0%}")
    print(f"  {'exact match':<16}{before.exact_match:>8.0%}{after.exact_match:>8.0%}")
    print(f"\n  version {report.version}\n  digest  {report.digest}")
    print(f"  {report.seconds_after_setup:.0f} s after set-up; report in {FOLDER}/report.json and report.html")
    if after.exact_match < before.exact_match + GAIN_NEEDED:
        print(f"demo: tuning gained less than {GAIN_NEEDED:.0%}", file=sys.stderr)
        return 1
    return 0


def _say(text: str) -> None:
    print(f"* {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
