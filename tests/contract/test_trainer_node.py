"""The trainer's methods on a real socket, workers being real processes with a scripted engine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.trainer_node import TrainerProcess, attempt_name, eventually, running_trainer, scripted_spec
from tuneforge.errors import TuneforgeError, from_rpc_error
from tuneforge.v1 import errors_pb2, events_pb2, nodes_pb2, spec_pb2, trainer_pb2, types_pb2

DIGEST = "a" * 64


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerProcess]:
    """One unmanaged node with two slots, shared by this module; each test uses a job of its own."""
    env = {"TUNEFORGE_TRAINER_SLOTS": "2"}
    with running_trainer(tmp_path_factory.mktemp("trainer"), env=env) as process:
        yield process


def _refusal(call: Callable[[], Any]) -> TuneforgeError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


def _start(
    trainer: TrainerProcess, name: str, spec: spec_pb2.TrainingSpec | None = None, token: str = ""
) -> nodes_pb2.AttemptStatus:
    request = trainer_pb2.StartAttemptRequest(name=name, spec=spec or scripted_spec(), token=token)
    return trainer.stub.StartAttempt(request)


def _finished(trainer: TrainerProcess, job: str, **options: Any) -> tuple[str, list[events_pb2.Event]]:
    """Runs an attempt to its end; returns its name and its events."""
    name = attempt_name(job)
    _start(trainer, name, scripted_spec(**options), token="secret")
    events, _ = trainer.watch(name)
    return name, events


def _stop(trainer: TrainerProcess, name: str, **fields: Any) -> nodes_pb2.AttemptStatus:
    return trainer.stub.StopAttempt(trainer_pb2.StopAttemptRequest(name=name, **fields))


def _ack(trainer: TrainerProcess, name: str, seq: int, **fields: Any) -> nodes_pb2.AttemptStatus:
    return trainer.stub.AckEvents(trainer_pb2.AckEventsRequest(name=name, seq=seq, **fields))


def test_node_tells_what_it_has(trainer: TrainerProcess) -> None:
    """GetNode shows address, slots, share of the processor, memory and an id of this start."""
    node = trainer.stub.GetNode(trainer_pb2.GetNodeRequest(name="nodes/n1"))
    assert (node.name, node.address, node.is_managed) == ("nodes/n1", trainer.address, False)
    assert (node.capacity.slots, node.capacity.cpu_millis) == (2, 1000)
    assert node.capacity.memory_bytes > 1 << 28
    assert node.state == nodes_pb2.NODE_STATE_READY
    assert len(node.generation) == 16


def test_another_node_is_not_found(trainer: TrainerProcess) -> None:
    """A node answers for itself only."""
    assert _refusal(lambda: trainer.stub.GetNode(trainer_pb2.GetNodeRequest(name="nodes/n2"))).reason == "NOT_FOUND"
    assert _refusal(lambda: trainer.stub.GetNode(trainer_pb2.GetNodeRequest(name="n1"))).reason == "INVALID_NAME"


def test_attempt_runs_to_its_end(trainer: TrainerProcess) -> None:
    """The watch gives every event in order, the outcome last, and the terminal status with the last message."""
    name = attempt_name("whole")
    _start(trainer, name)
    events, status = trainer.watch(name)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {(event.job, event.attempt) for event in events} == {("projects/p/jobs/whole", 1)}
    kinds = [event.WhichOneof("payload") for event in events if event.WhichOneof("payload") != "device"]
    assert kinds == ["state", "state", "step", "step", "step", "log", "outcome"]
    outcome = events[-1].outcome
    assert outcome.result == events_pb2.ATTEMPT_RESULT_SUCCEEDED
    assert (outcome.step, outcome.artifact_kind) == (3, events_pb2.ARTIFACT_KIND_ADAPTER)
    assert outcome.manifest.files[0].path == "adapter_config.json"
    assert (status.state, status.last_seq, status.step) == (nodes_pb2.ATTEMPT_STATE_SUCCEEDED, events[-1].seq, 3)
    assert status.HasField("end_time")
    result = next(event.log.message for event in events if event.HasField("log")).removeprefix("the result is in ")
    assert (Path(result) / "adapter_config.json").is_file()


def test_watch_begins_after_any_number(trainer: TrainerProcess) -> None:
    """A watcher that has the first n events gets exactly the others, and an end without events when it has all."""
    name, events = _finished(trainer, "resumable")
    for after in range(len(events) + 1):
        rest, status = trainer.watch(name, after)
        assert [event.seq for event in rest] == list(range(after + 1, len(events) + 1))
        assert status.state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED


def test_only_the_last_message_has_the_end(trainer: TrainerProcess) -> None:
    """In a replay of an ended attempt with many messages the terminal status comes with the last one alone."""
    name, _ = _finished(trainer, "chatty", steps=2, behaviour="flood")
    messages = list(trainer.stub.WatchAttempt(trainer_pb2.WatchAttemptRequest(name=name)))
    assert len(messages) > 1
    assert [message.status.state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED for message in messages[:-1]].count(True) == 0
    assert messages[-1].status.state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED


def test_watch_outside_of_the_spool_is_out_of_range(trainer: TrainerProcess) -> None:
    """A number that is not reached yet is refused, with the numbers that there are."""
    name, events = _finished(trainer, "range")
    error = _refusal(lambda: trainer.watch(name, len(events) + 1))
    assert error.reason == "CURSOR_OUT_OF_RANGE"
    assert error.metadata["oldest_seq"] == "1"
    assert error.metadata["newest_seq"] == str(len(events))


def test_unknown_attempt_is_not_found(trainer: TrainerProcess) -> None:
    """No method knows an attempt that was never started here, and none takes a malformed name."""
    name = attempt_name("nobody")
    calls: list[Callable[[str], Any]] = [
        trainer.watch,
        lambda each: _ack(trainer, each, 0),
        lambda each: _stop(trainer, each),
    ]
    for call in calls:
        assert _refusal(lambda call=call: call(name)).reason == "NOT_FOUND"  # type: ignore[misc]
        assert _refusal(lambda call=call: call("projects/p/jobs/j")).reason == "INVALID_NAME"  # type: ignore[misc]


def test_repeated_start_is_the_same_attempt(trainer: TrainerProcess) -> None:
    """The same name and token give the same attempt; another token, or an older number, is stale."""
    name, events = _finished(trainer, "again")
    assert _start(trainer, name, token="secret").last_seq == len(events)
    assert _start(trainer, name).last_seq == len(events)  # unmanaged: no token is any token
    assert _refusal(lambda: _start(trainer, name, token="other")).reason == "STALE_ATTEMPT"
    assert trainer.watch(name)[0] == events
    second = attempt_name("again", 2)
    _start(trainer, second)
    trainer.watch(second)
    assert _refusal(lambda: _start(trainer, attempt_name("again", 1), token="third")).reason == "STALE_ATTEMPT"


def test_older_attempt_is_stale(trainer: TrainerProcess) -> None:
    """An attempt number below one that the node knows is refused, also when it was never started here."""
    _start(trainer, attempt_name("late", 3))
    assert _refusal(lambda: _start(trainer, attempt_name("late", 2))).reason == "STALE_ATTEMPT"
    trainer.watch(attempt_name("late", 3))


def test_all_wrong_fields_are_named(trainer: TrainerProcess) -> None:
    """One answer lists everything that is wrong with a start, by field."""
    spec = scripted_spec(step_s=float("nan"))
    spec.data.max_tokens = 2
    spec.resources.devices_per_node = 1
    manifest = types_pb2.Manifest(files=[types_pb2.ManifestFile(path="../x", sha256=DIGEST, size_bytes=1)])
    request = trainer_pb2.StartAttemptRequest(
        name=attempt_name("wrong"),
        token="x" * 129,
        spec=spec,
        node_rank=1,
        validation=trainer_pb2.DataInput(manifest=manifest),
    )
    error = _refusal(lambda: trainer.stub.StartAttempt(request))
    assert error.reason == "INVALID_FIELD"
    assert {violation.field for violation in error.fields} == {
        "token",
        "node_rank",
        "rendezvous",
        "validation.manifest",
        "spec.optimization.learning_rate",
        "spec.data.max_tokens",
        "spec.resources.devices_per_node",
    }
    assert trainer.attempt(attempt_name("wrong")) is None


def test_missing_spec_and_inputs_are_named(trainer: TrainerProcess) -> None:
    """A start without a spec, and one whose base and rows are named but not given by digest, say what is missing."""
    error = _refusal(lambda: trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=attempt_name("empty"))))
    assert {"spec", "spec.base", "spec.method"} <= {violation.field for violation in error.fields}
    spec = scripted_spec()
    spec.base.model = "projects/p/models/m/versions/1"
    spec.data.train.dataset = "projects/p/datasets/d/versions/1"
    error = _refusal(lambda: _start(trainer, attempt_name("empty"), spec))
    assert {violation.field for violation in error.fields} == {"base", "train"}


@pytest.mark.parametrize("path", ["../outside", "/etc", "tiny/../../outside", "link", "nul\0byte"])
def test_local_path_cannot_escape(trainer: TrainerProcess, path: str) -> None:
    """A path that leads out of the inputs folder is refused, a link too."""
    (trainer.folder / "outside").mkdir(exist_ok=True)
    link = trainer.inputs / "link"
    if not link.is_symlink():
        link.symlink_to(trainer.folder / "outside")
    spec = scripted_spec()
    spec.base.local_path = path
    assert _refusal(lambda: _start(trainer, attempt_name("escape"), spec)).reason == "LOCAL_PATH_REFUSED"


@pytest.mark.parametrize("path", ["missing.jsonl", "tiny", "x" * 5000])
def test_missing_local_file_is_named(trainer: TrainerProcess, path: str) -> None:
    """A local path at which there is nothing of the right kind is a wrong field."""
    spec = scripted_spec()
    spec.data.train.local_path = path
    error = _refusal(lambda: _start(trainer, attempt_name("missing"), spec))
    assert [violation.field for violation in error.fields] == ["spec.data.train.local_path"]


def test_full_node_refuses_until_an_attempt_ends(trainer: TrainerProcess) -> None:
    """With all slots taken a start is refused; a cancelled attempt frees its slot."""
    names = [attempt_name(f"long-{index}") for index in range(3)]
    for name in names[:2]:
        _start(trainer, name, scripted_spec(steps=100_000))
    error = _refusal(lambda: _start(trainer, names[2]))
    assert error.reason == "NODE_FULL"
    assert error.retry_after_s
    for name in names[:2]:
        trainer.wait_step(name, 1)
        assert _stop(trainer, name, mode=trainer_pb2.STOP_MODE_CANCEL).state == nodes_pb2.ATTEMPT_STATE_STOPPING
        events, status = trainer.watch(name)
        assert status.state == nodes_pb2.ATTEMPT_STATE_CANCELLED
        assert events[-1].outcome.result == events_pb2.ATTEMPT_RESULT_CANCELLED
    _start(trainer, names[2])
    assert trainer.watch(names[2])[1].state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED


def test_stopped_attempt_saves_and_the_next_goes_on(trainer: TrainerProcess) -> None:
    """A stop without a mode saves the state; the job's next attempt begins where it ended. Stopping twice is once."""
    first, second = attempt_name("paused", 1), attempt_name("paused", 2)
    _start(trainer, first, scripted_spec(steps=100_000))
    trainer.wait_step(first, 2)
    _stop(trainer, first)
    _stop(trainer, first)
    events, status = trainer.watch(first)
    assert status.state == nodes_pb2.ATTEMPT_STATE_INTERRUPTED
    assert events[-2].WhichOneof("payload") in {"checkpoint", "device"}
    assert _stop(trainer, first).state == nodes_pb2.ATTEMPT_STATE_INTERRUPTED
    _start(trainer, second, scripted_spec(steps=status.step + 2))
    events, _ = trainer.watch(second)
    assert [event.resumed_from.step for event in events if event.HasField("resumed_from")] == [status.step]
    assert [event.step.step for event in events if event.HasField("step")] == [status.step + 1, status.step + 2]


def test_stop_is_checked(trainer: TrainerProcess) -> None:
    """A stop with another token or a grace time out of range is refused."""
    name = attempt_name("checked")
    _start(trainer, name, token="secret")
    assert _refusal(lambda: _stop(trainer, name, token="other")).reason == "STALE_ATTEMPT"
    error = _refusal(lambda: _stop(trainer, name, grace=Duration(seconds=601)))
    assert [violation.field for violation in error.fields] == ["grace"]
    trainer.watch(name)


def test_acknowledged_attempt_goes(trainer: TrainerProcess) -> None:
    """Events are dropped when they are acknowledged, the attempt with its end; repeating it gives the same answer."""
    name, events = _finished(trainer, "acked")
    newest = len(events)
    assert _refusal(lambda: _ack(trainer, name, newest + 1)).reason == "CURSOR_OUT_OF_RANGE"
    assert _refusal(lambda: _ack(trainer, name, 1, token="other")).reason == "STALE_ATTEMPT"
    assert _ack(trainer, name, 2).acked_seq == 2
    assert _ack(trainer, name, 1).acked_seq == 2
    _ack(trainer, name, newest - 1, is_final=True)
    assert trainer.attempt(name) is not None  # the outcome itself was not acknowledged
    status = _ack(trainer, name, newest, is_final=True)
    assert trainer.attempt(name) is None
    assert _ack(trainer, name, newest, is_final=True) == status
    assert _start(trainer, name, token="secret") == status
    assert _stop(trainer, name, token="secret") == status
    assert _refusal(lambda: _ack(trainer, name, newest, is_final=True, token="other")).reason == "STALE_ATTEMPT"
    assert _refusal(lambda: trainer.watch(name)).reason == "NOT_FOUND"


def test_acknowledged_segments_are_dropped(trainer: TrainerProcess) -> None:
    """Of a long spool whole segments go, and a watcher that would need them is told the oldest event."""
    name, events = _finished(trainer, "dropped", steps=2, behaviour="flood")
    _ack(trainer, name, len(events) - 1)
    error = _refusal(lambda: trainer.watch(name))
    assert error.reason == "CURSOR_OUT_OF_RANGE"
    oldest = int(error.metadata["oldest_seq"])
    assert 1 < oldest < len(events)
    assert trainer.watch(name, oldest - 1)[0] == events[oldest - 1 :]


@pytest.mark.parametrize(
    ("behaviour", "reason", "fault"),
    [
        ("fault", errors_pb2.ERROR_REASON_LOSS_NOT_FINITE, types_pb2.FAULT_CLASS_USER),
        ("crash", errors_pb2.ERROR_REASON_INTERNAL, types_pb2.FAULT_CLASS_USER),
    ],
)
def test_failed_attempt_says_why(
    trainer: TrainerProcess,
    behaviour: str,
    reason: errors_pb2.ErrorReason.ValueType,
    fault: types_pb2.FaultClass.ValueType,
) -> None:
    """A failure is in outcome and status with reason, sentence and cure; an unknown exception keeps its text back."""
    name, events = _finished(trainer, behaviour, behaviour=behaviour)
    status = trainer.attempt(name)
    assert status is not None
    assert status.state == nodes_pb2.ATTEMPT_STATE_FAILED
    assert status.failure == events[-1].outcome.failure
    assert (status.failure.reason, status.failure.fault) == (reason, fault)
    assert status.failure.message
    assert status.failure.cure
    assert "a secret of the code" not in str(events)


def test_worker_that_ends_silently_is_lost(trainer: TrainerProcess) -> None:
    """A process that ends without an outcome is LOST, with its exit code and no outcome event."""
    name, events = _finished(trainer, "silent", behaviour="exit")
    status = trainer.attempt(name)
    assert status is not None
    assert status.state == nodes_pb2.ATTEMPT_STATE_LOST
    assert status.failure.reason == errors_pb2.ERROR_REASON_WORKER_LOST
    assert status.failure.fault == types_pb2.FAULT_CLASS_INFRASTRUCTURE
    assert status.failure.metadata["exit_code"] == "7"
    assert not any(event.HasField("outcome") for event in events)


def test_events_are_seen_at_once(trainer: TrainerProcess) -> None:
    """A watcher has an event within a tenth of a second of its time, or, on a machine so slow, of some plain calls."""
    name = attempt_name("prompt")
    _start(trainer, name, scripted_spec(steps=40, step_s=0.02))
    late, calls = [], []
    for message in trainer.stub.WatchAttempt(trainer_pb2.WatchAttemptRequest(name=name)):
        now = time.time()
        late += [now - event.time.ToNanoseconds() / 1e9 for event in message.events]
    for _ in range(20):
        began = time.time()
        trainer.stub.GetNode(trainer_pb2.GetNodeRequest())
        calls.append(time.time() - began)
    assert median(late) < max(0.1, 5 * median(calls))


def test_tokens_stay_secret(trainer: TrainerProcess) -> None:
    """A fencing token is in no log line, no command line and no file that others may read."""
    name = attempt_name("hidden")
    _start(trainer, name, scripted_spec(steps=100_000), token="hush-hush-token")
    pid = trainer.worker_pid(name)
    assert b"hush-hush-token" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    folder = trainer.folder / "data/trainer/jobs/p/hidden/attempts/1-0"
    for file in folder.glob("*.*"):
        assert file.stat().st_mode & 0o077 == 0, file
    _stop(trainer, name, mode=trainer_pb2.STOP_MODE_CANCEL)
    trainer.watch(name)
    assert "hush-hush-token" not in trainer.log.read_text()


def test_agent_needs_no_torch() -> None:
    """Neither torch nor transformers is ever imported in the process of the event loop."""
    code = "import services.trainer.__main__, sys; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_second_trainer_over_the_same_folder_is_refused(trainer: TrainerProcess) -> None:
    """Two agents never own one data folder: the second ends with code 78 and one clear line."""
    env = os.environ | {"TUNEFORGE_DATA": str(trainer.folder / "data"), "TUNEFORGE_TRAINER_LISTEN": "127.0.0.1:0"}
    result = subprocess.run(
        [sys.executable, "-m", "services.trainer"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 78
    assert len(result.stderr.strip().splitlines()) == 1
    assert "in use by process" in result.stderr
    assert eventually(lambda: trainer.stub.GetNode(trainer_pb2.GetNodeRequest()), "an answer").name == "nodes/n1"
