"""The command line as a program: exit codes, streams, Ctrl-C, pipes, start-up."""

import json
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import fake_scheduler
from tests.support.fake_scheduler import FakeScheduler
from tuneforge.v1 import errors_pb2, events_pb2, jobs_pb2

COMMAND = [sys.executable, "-m", "tuneforge.cli"]


@pytest.fixture
def scheduler() -> FakeScheduler:
    """A scheduler with a job of thirty steps that has succeeded."""
    fake = FakeScheduler()
    fake.job.state = jobs_pb2.JOB_STATE_SUCCEEDED
    fake.job.version.version = "projects/default/models/router/versions/3"
    for number in range(1, 31):
        step = events_pb2.StepMetrics(step=number, total_steps=30, loss=3 / number)
        fake.events.append(events_pb2.Event(job_seq=number, attempt=1, seq=number, step=step))
    change = events_pb2.StateChange(to="SUCCEEDED", reason="PUBLISHED", message="done")
    fake.events.append(events_pb2.Event(job_seq=31, state=change))
    return fake


@pytest.fixture
def environment(scheduler: FakeScheduler) -> Iterator[Mapping[str, str]]:
    """The environment of a command that finds the fake."""
    with fake_scheduler.serve(scheduler) as address:
        yield {**os.environ, "TUNEFORGE_SCHEDULER_ADDRESS": address}


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with its output in pipes."""
    return subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False)


def wait_for(condition: object) -> None:
    """Polls until a callable returns something true."""
    while not condition():  # type: ignore[operator]
        time.sleep(0.01)


def test_a_piped_watch_prints_plain_lines(environment: Mapping[str, str]) -> None:
    """One line an event, no colours, and the result at the end."""
    done = run(environment, "jobs", "watch", "my-job")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert len(lines) == 32
    assert "1/30  loss 3.0000" in lines[0]
    assert lines[-1] == "my-job: SUCCEEDED, published router/3"
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_a_watch_as_json_is_one_object_a_line(environment: Mapping[str, str]) -> None:
    """Programs get every event, then the job."""
    done = run(environment, "jobs", "watch", "my-job", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["job_seq"] for row in rows[:-1]] == list(range(1, 32))
    assert rows[0]["payload"]["loss"] == 3.0
    assert rows[-1]["kind"] == "end"
    assert rows[-1]["job"]["state"] == "SUCCEEDED"


def test_a_watch_on_a_terminal_draws_the_curve(environment: Mapping[str, str]) -> None:
    """On a terminal there is a bar, a curve and a state, and the cursor is given back."""
    leader, follower = pty.openpty()
    command = [*COMMAND, "jobs", "watch", "my-job"]
    with subprocess.Popen(command, env={**environment, "TERM": "xterm", "COLUMNS": "80"}, stdout=follower) as process:
        os.close(follower)
        output = b""
        try:
            while piece := os.read(leader, 65536):
                output += piece
        except OSError:  # the terminal is gone with the command
            pass
    os.close(leader)
    text = output.decode()
    assert process.returncode == 0
    assert "30/30 steps" in text
    assert any("⠁" <= character <= "⣿" for character in text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is visible again"


def test_a_failed_job_is_exit_code_1_with_its_cure(environment: Mapping[str, str], scheduler: FakeScheduler) -> None:
    """Scripts notice a failure, people read why."""
    scheduler.job.state = jobs_pb2.JOB_STATE_FAILED
    scheduler.job.failure.reason = errors_pb2.ERROR_REASON_OUT_OF_MEMORY
    scheduler.job.failure.message = "The device ran out of memory."
    scheduler.job.failure.cure = "Lower the micro-batch."
    done = run(environment, "jobs", "watch", "my-job")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: projects/default/jobs/my-job failed: The device ran out of memory.",
        "Lower the micro-batch.",
    ]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_is_one_line_that_says_how_to_go_on(
    environment: Mapping[str, str], scheduler: FakeScheduler, flags: list[str]
) -> None:
    """The watch ends with 130 at once; the job is not touched."""
    scheduler.cut = lambda _stream, message: "silence" if message == 5 else ""
    command = [*COMMAND, "jobs", "watch", "my-job", *flags]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.decode().splitlines() == [
        "stopped watching; the job goes on. Watch it again: tuneforge jobs watch my-job  "
        "Stop the job: tuneforge jobs cancel my-job"
    ]
    assert scheduler.job.state == jobs_pb2.JOB_STATE_SUCCEEDED


def test_ctrl_c_while_nobody_answers(environment: Mapping[str, str], scheduler: FakeScheduler) -> None:
    """Waiting for a service can be stopped like anything else."""
    scheduler.refusals = 10_000
    with subprocess.Popen([*COMMAND, "jobs", "list"], env=environment, stderr=subprocess.PIPE) as process:
        wait_for(lambda: scheduler.requests)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, b"stopped\n")


def test_a_closed_pipe_ends_quietly(environment: Mapping[str, str]) -> None:
    """`tuneforge ... | head -1` prints no traceback."""
    command = [*COMMAND, "jobs", "watch", "my-job"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_nobody_there_is_one_clear_message(tmp_path: Path) -> None:
    """The address, the cause and two cures."""
    with fake_scheduler.serve(FakeScheduler()) as address:
        pass
    done = run({**os.environ}, "--scheduler", address, "jobs", "list")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: the scheduler at {address} does not answer: the connection was refused",
        "Start the suite with `make up` or `python -m services`, or give its address: --scheduler or "
        "TUNEFORGE_SCHEDULER_ADDRESS.",
    ]


def test_addresses_may_stand_after_the_command(environment: Mapping[str, str]) -> None:
    """People write options where they come to mind."""
    address = environment["TUNEFORGE_SCHEDULER_ADDRESS"]
    bare = {key: value for key, value in environment.items() if key != "TUNEFORGE_SCHEDULER_ADDRESS"}
    for arguments in (["--scheduler", address, "nodes", "list"], ["nodes", "list", "--scheduler", address]):
        done = run(bare, *arguments)
        assert done.stdout.splitlines()[1].split()[:2] == ["n1", "READY"]


def test_wrong_usage_is_exit_code_2(environment: Mapping[str, str]) -> None:
    """A missing argument is told apart from an error."""
    done = run(environment, "jobs", "watch")
    assert done.returncode == 2
    assert "name a JOB" in done.stderr


def test_submit_builds_the_spec_from_flags(environment: Mapping[str, str], scheduler: FakeScheduler) -> None:
    """Flags land in their places of the spec; short names are whole on the wire."""
    done = run(
        environment,
        *("jobs", "submit", "--base", "smollm2@production", "--data", "rows/3", "--method", "qlora", "--rank", "8"),
        *("--target", "q_proj", "--target", "v_proj", "--epochs", "2", "--lr", "1e-4", "--rows-per-step", "4"),
        *("--schedule", "linear", "--output", "router", "--job-id", "one", "--label", "team=blue", "--seed", "7"),
    )
    assert done.stdout == "one: QUEUED; watch it: tuneforge jobs watch one\n"
    (request,) = scheduler.requests
    assert request.labels == {"team": "blue"}
    assert request.spec.base.model == "projects/default/models/smollm2/aliases/production"
    assert request.spec.data.train.dataset == "projects/default/datasets/rows/versions/3"
    assert request.spec.qlora.lora.rank == 8
    assert list(request.spec.qlora.lora.target_modules) == ["q_proj", "v_proj"]
    assert (request.spec.optimization.epochs, request.spec.optimization.learning_rate) == (2.0, 1e-4)
    assert request.spec.output.model == "projects/default/models/router"
    assert request.spec.HasField("supervised")


def test_flags_go_on_top_of_a_file(environment: Mapping[str, str], scheduler: FakeScheduler, tmp_path: Path) -> None:
    """A flag takes the place of what the file says, also where only one of several may stand."""
    spec = {
        "base": {"output_of_job": "other"},
        "supervised": {},
        "lora": {"rank": 4},
        "data": {"train": {"dataset": "rows"}},
        "optimization": {"epochs": 3},
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    flags = ["--base", "m/1", "--max-steps", "5", "--alpha", "8", "--validate-only", "--json"]
    done = run(environment, "jobs", "submit", "--spec", str(path), *flags)
    assert done.returncode == 0, done.stderr
    (request,) = scheduler.requests
    assert request.validate_only
    assert request.spec.base.WhichOneof("source") == "model"
    assert request.spec.optimization.WhichOneof("length") == "max_steps"
    assert (request.spec.lora.rank, request.spec.lora.alpha) == (4, 8.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "full", "--rank", "8"], "--rank is for adapters, not full."),
        (["--epochs", "1", "--max-steps", "2"], "--epochs and --max-steps exclude each other"),
        (["--rank", "0"], "--rank is 0: use 1 or more"),
        (["--max-tokens", "0"], "--max-tokens is 0: use 8 to 131072"),
        (["--label", "oops"], "'oops' is not of the form KEY=VALUE."),
        (["--beta", "0.2"], "--beta is for --task dpo, not supervised."),
        (["--task", "dpo", "--beta", "0"], "--beta is 0: use a number > 0"),
    ],
)
def test_flags_that_cannot_be_are_wrong_usage(environment: Mapping[str, str], arguments: list[str], said: str) -> None:
    """Contradictions are told before anything is sent."""
    done = run(environment, "jobs", "submit", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_number_that_is_not_finite_is_refused_by_its_field(environment: Mapping[str, str]) -> None:
    """No parser's text is shown."""
    done = run(environment, "jobs", "submit", "--base", "m/1", "--data", "rows", "--lr", "nan", "--epochs", "inf")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:3] == [
        "  optimization.learning_rate: is nan: use a finite number > 0, or 0 for the default",
        "  optimization.epochs: is inf: use a finite number > 0, at most 10000",
    ]


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_a_file_without_rows_is_called_empty(environment: Mapping[str, str], tmp_path: Path, content: str) -> None:
    """There is no line that could be pointed at."""
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    done = run(environment, "datasets", "upload", str(path), "--dataset", "rows")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"error: '{path}' is empty: write one JSON object a line"


def test_a_line_that_breaks_off_is_told_in_plain_words(environment: Mapping[str, str], tmp_path: Path) -> None:
    """The parser's half sentence does not double a word."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a\n{"prompt": "a", "completion": "b"}\n')
    done = run(environment, "datasets", "upload", str(path), "--dataset", "rows")
    assert "rows.jsonl:1" in done.stderr
    assert "at at" not in done.stderr


def test_ctrl_c_before_an_upload_began_says_that_nothing_was_sent(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    """What was never sent cannot be kept."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and answers nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [*COMMAND, "datasets", "upload", str(path), "--dataset", "rows", "--registry", address]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            accepted, _ = silent.accept()
            with accepted:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate()
    assert (process.returncode, errors) == (130, b"stopped: no version was made; nothing was sent\n")


def processor_s() -> float:
    """Returns the seconds of a processor that the programs took which have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_version_is_shown_and_the_start_is_quick(environment: Mapping[str, str]) -> None:
    """`--version` needs neither gRPC nor rich, so that it is there at once: well before a client could be made."""
    begun_s = processor_s()
    done = run(environment, "--version")
    version_s = processor_s() - begun_s
    subprocess.run([sys.executable, "-c", "from tuneforge import Client; Client"], env=environment, check=True)
    client_s = processor_s() - begun_s - version_s
    assert done.stdout.startswith("tuneforge 0.")
    assert version_s < 0.7 * client_s
    code = "import sys, tuneforge.cli.app; sys.exit(' '.join(sys.modules.keys() & {'grpc', 'rich', 'google.protobuf'}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).stderr == b"\n"
