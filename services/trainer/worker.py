"""The worker: one forked process that trains one attempt and is the only writer of its spool.

It needs nobody: with agent, scheduler and registry dead it trains on, and its events wait on disk. It looks at the stop
file at every step's end; SIGTERM without a stop file (a machine that shuts down) asks for a checkpoint too. Its last
event is the outcome. No grpc at module level: the fork server imports this before it forks.
"""

from __future__ import annotations

import errno
import faulthandler
import math
import os
import shutil
import signal
import sys
import time
import traceback
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from services.trainer import adoption
from services.trainer.admission import StartRequest
from services.trainer.confinement import Share, confine
from services.trainer.devices import cuda_name
from services.trainer.durable import DurableCheckpoints, begins_from, bring_state
from services.trainer.ends import AttemptFailure, AttemptState, Outcome, failure, outcome_message
from services.trainer.engine.training_task import (
    Fault,
    RunResult,
    Seat,
    StopRequest,
    TrainingFault,
    TrainingInputs,
    TrainingResult,
)
from services.trainer.events import EventLog
from services.trainer.folders import AttemptFolder, create_json
from services.trainer.inputs import Inputs, Stopped, blob_client, bring, insist
from services.trainer.node_cache import NodeCache
from services.trainer.orders import Assignment, StopMode, StopOrder
from services.trainer.pulse import DUMP_SIGNAL, Pulse
from services.trainer.sampling import Sampling
from services.trainer.seats import take_seat
from services.trainer.wire import KIND_NUMBERS, manifest_to_proto, read_start
from tuneforge._check_wire import report_to_proto
from tuneforge.errors import Reason, TuneforgeError
from tuneforge.manifest import IntegrityError, StoredDamage
from tuneforge.signatures import SignatureError
from tuneforge.v1 import events_pb2, trainer_pb2

if TYPE_CHECKING:
    from services.trainer.engine.token_cache import TokenCache
    from tuneforge.blobs import BlobClient

EXIT_NOT_OURS = 4
"""Exit code of a worker whose attempt has another worker already."""
_WAIT_SLICE_S = 0.1
_SIGNAL_GRACE_S = 5.0
"""How long a worker that a SIGTERM alone has asked to stop goes on sending: who sent it is not known."""
_LAST_COPY_S = 60.0
"""How long a succeeded run, whose result is stored, waits for the copy of its last checkpoint."""
_KILL_MARGIN_S = 3.0
"""How long before its process is ended a worker stops waiting, so that it still says how it ended."""


def preload() -> None:
    """Imports what a worker needs; called once, in the fork server."""
    from services.trainer.engine import training

    training.preload()


def preload_nothing() -> None:
    """Leaves all imports to the workers, on a node with accelerators.

    PEFT imports bitsandbytes, which asks each accelerator what it can do. That begins CUDA, which survives no fork.
    """


def run(folder: Path) -> int:
    """Trains the attempt whose folder this is; returns the exit code of the process."""
    files = AttemptFolder(folder)
    _redirect_output(files.log)
    _dump_stacks_into(files.stacks)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle
    stop = StopFile(files.stop)
    signal.signal(signal.SIGTERM, lambda *_: stop.note_signal())
    identity = adoption.identify(os.getpid())
    if identity is None or not create_json(files.worker, identity.to_json()):
        return EXIT_NOT_OURS
    assignment = Assignment.read(files.assignment)
    if assignment.device_index is not None:
        # Set before CUDA is touched: the worker sees its own accelerator only, as `cuda:0`.
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ["CUDA_VISIBLE_DEVICES"] = cuda_name(assignment.device_index)
    log = EventLog(files.spool, assignment.name, assignment.node_rank, limit_bytes=assignment.spool_bytes)
    sampling = Sampling(log, () if assignment.device_index is None else (assignment.device_index,))
    with sampling:
        outcome = Worker(files, assignment, log, stop).work()
    for name, joules in sampling.energy().items():
        outcome.metrics[name] = joules
    log.emit(outcome)
    log.close()
    return 0


def _share(assignment: Assignment) -> Share:
    cores = -(-assignment.cpu_millis // 1000)
    return Share(
        cpu_millis=assignment.cpu_millis, memory_bytes=assignment.memory_bytes, first_core=assignment.slot * cores
    )


class StopFile:
    """Whether the worker is to stop; called at every step's end, it costs one look for a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_signalled = False
        self._end_by = math.inf

    def note_signal(self) -> None:
        """Notes a SIGTERM."""
        self._is_signalled = True
        self._end_by = time.time() + _SIGNAL_GRACE_S

    def may_wait(self) -> bool:
        """Tells whether there is time left for what is only good to have."""
        order = StopOrder.read(self._path)
        if order is not None:
            return order.mode is StopMode.CHECKPOINT and time.time() < order.kill_at - _KILL_MARGIN_S
        return time.time() < self._end_by

    def __call__(self) -> StopRequest | None:
        """Returns what the worker is asked for."""
        if self._path.exists():
            order = StopOrder.read(self._path)
            if order is not None and order.mode is StopMode.CANCEL:
                return StopRequest.CANCEL
            return StopRequest.CHECKPOINT
        return StopRequest.CHECKPOINT if self._is_signalled else None


class Worker:
    """One attempt, from its inputs to its outcome."""

    def __init__(self, files: AttemptFolder, assignment: Assignment, log: EventLog, stop: StopFile) -> None:
        self._files = files
        self._assignment = assignment
        self._log = log
        self._stop = stop
        self._pulse = Pulse(files.pulse)
        self._said = ""
        self._step = 0
        self._cache = NodeCache(Path(assignment.cache), assignment.cache_bytes, self._say)

    def work(self) -> events_pb2.AttemptOutcome:
        """Returns how the attempt ended; raises nothing."""
        try:
            confine(_share(self._assignment), f"tuneforge-{uuid.uuid4().hex[:12]}", self._files.group)
            return self._train()
        except Stopped:
            is_cancel = self._stop() is StopRequest.CANCEL
            return outcome_message(
                Outcome(AttemptState.CANCELLED if is_cancel else AttemptState.INTERRUPTED, None), step=self._step
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, the attempt has to say how it ended
            traceback.print_exc()
            fault = named(error)
            if isinstance(error, IntegrityError):
                self._distrust_cache()
            self._say(f"{fault.message} {fault.cure}", events_pb2.LOG_SEVERITY_ERROR)
            return outcome_message(Outcome(AttemptState.FAILED, fault), step=self._step)

    def wait(self, seconds: float) -> None:
        """Waits.

        Raises:
            Stopped: The worker is to stop.
        """
        end = time.monotonic() + seconds
        while True:
            if self._stop() is not None:
                raise Stopped
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _WAIT_SLICE_S))

    def say_waiting(self, message: str) -> None:
        """Tells people, once for each reason, that the attempt waits."""
        if message != self._said:
            self._said = message
            self._say(message, events_pb2.LOG_SEVERITY_WARNING)

    def _train(self) -> events_pb2.AttemptOutcome:
        from services.trainer.engine.training import train

        assignment = self._assignment
        seat = take_seat(assignment, self._files)
        self._log.change_state("", AttemptState.STARTING, "ACCEPTED", "its worker fetches what it needs")
        self.wait(0)
        begin = time.monotonic()
        request = read_start(trainer_pb2.StartAttemptRequest.FromString(self._files.request.read_bytes()))
        inputs = bring(request, assignment, self._cache, self)
        checkpoints = Path(assignment.checkpoints)
        if request.node_rank == 0:  # it sends the others what they need of it
            bring_state(request, checkpoints, self._cache, self._connect, self)
        self._log.change_state(
            AttemptState.STARTING,
            AttemptState.RUNNING,
            "INPUTS_READY",
            f"base and rows were here after {time.monotonic() - begin:.1f} s; training begins",
        )
        sink = DurableCheckpoints(
            self._log,
            checkpoints,
            self._connect,
            every_steps=_durable_every_steps(request, assignment),
            known=request.checkpoints,
        )
        try:
            result = train(self._training_inputs(request, inputs, seat), sink, self._stop)
            self._step = result.step
            if result.result is RunResult.SUCCEEDED:
                self._store(result, Path(assignment.output))
            if result.replayed_weights_digest:  # what it began from is of no use here any more
                shutil.rmtree(checkpoints, ignore_errors=True)
            if result.result is not RunResult.CANCELLED:
                # What a succeeded run is for is stored: its device is not kept for long.
                sink.finish(self._stop.may_wait, at_most_s=_LAST_COPY_S if result.artifact else math.inf)
        finally:
            sink.close()
        return _outcome_of(result)

    def _training_inputs(self, request: StartRequest, inputs: Inputs, seat: Seat | None) -> TrainingInputs:
        assignment = self._assignment
        return TrainingInputs(
            spec=request.spec,
            base=inputs.base,
            train=inputs.train.files,
            train_rows=inputs.train.choice,
            validation=inputs.validation.files,
            validation_rows=inputs.validation.choice,
            checkpoints=Path(assignment.checkpoints),
            attempt=assignment.name.attempt,
            branches_from=_branches_from(request),
            replay_to=_replay_to(request),
            rows_at_once=request.rows_at_once,
            output=Path(assignment.output),
            threads=assignment.threads,
            device="cpu" if assignment.device_index is None else "cuda:0",
            tokens=_token_cache(assignment),
            pulse=self._pulse,
            seat=seat,
        )

    def _connect(self) -> AbstractContextManager[BlobClient]:
        return blob_client(self._assignment.registry, self._assignment.name.project)

    def _store(self, result: TrainingResult, output: Path) -> None:
        """Brings the artifact to the registry, unless the base was a folder of this node: nobody knows that there."""
        assignment, artifact = self._assignment, result.artifact
        if assignment.base is None and artifact is not None:
            with blob_client(assignment.registry, assignment.name.project) as blobs:
                insist(lambda: blobs.upload_manifest(output, artifact), assignment.registry, self)
        if assignment.is_kept:
            self._say(f"the result is in {output}")

    def _distrust_cache(self) -> None:
        """Lets the next attempt fetch anew what may be damaged here."""
        request = read_start(trainer_pb2.StartAttemptRequest.FromString(self._files.request.read_bytes()))
        for artifact in (*request.base, request.train, request.validation):
            if artifact is not None:
                self._cache.discard(artifact.manifest)

    def _say(self, message: str, severity: events_pb2.LogSeverity.ValueType = events_pb2.LOG_SEVERITY_INFO) -> None:
        self._log.log(message, severity)


def _token_cache(assignment: Assignment) -> TokenCache | None:
    from services.trainer.engine.token_cache import TokenCache  # with numpy: the fork server has it, the agent not

    if not assignment.tokens_bytes:
        return None
    return TokenCache(folder=Path(assignment.tokens), limit_bytes=assignment.tokens_bytes)


def named(error: Exception) -> AttemptFailure:
    """Says why a run cannot go on, for a person."""
    if isinstance(error, TrainingFault):
        return AttemptFailure(
            reason=error.reason.value,
            message=error.message,
            cure=error.cure,
            is_user=error.fault is Fault.USER,
            metadata=error.metadata,
        )
    if isinstance(error, StoredDamage):
        message = f"the registry's copy of a file is damaged: {error}"
        return failure(Reason.BLOB_DAMAGED, message, metadata={"path": error.path})
    if isinstance(error, IntegrityError):
        return failure(Reason.INTEGRITY, f"a file is damaged: {error}", metadata={"path": error.path})
    if isinstance(error, SignatureError):  # the same files are refused again, here and everywhere
        return failure(Reason.SIGNATURE, f"an input is not what the registry signed: {error}", is_user=True)
    if isinstance(error, TuneforgeError):
        known = error.reason in Reason.__members__
        reason = Reason(error.reason) if known else Reason.PEER_UNAVAILABLE
        return failure(reason, f"the registry refused: {error.message}", metadata=error.metadata)
    if isinstance(error, OSError):
        reason = Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.INTERNAL
        return failure(reason, f"a file could not be read or written: {error.strerror} ({error.filename})")
    if isinstance(error, MemoryError):
        return failure(Reason.OUT_OF_MEMORY, "the host ran out of memory", is_user=True)
    # It would fail again: a fault of the code, not of the machine. The text stays in the node's log.
    incident = uuid.uuid4().hex[:12]
    sys.stderr.write(f"incident {incident}\n")
    return failure(
        Reason.INTERNAL,
        f"the training code failed ({type(error).__name__}); the log of the worker has it as incident {incident}",
        is_user=True,
        metadata={"incident": incident},
    )


def _outcome_of(result: TrainingResult) -> events_pb2.AttemptOutcome:
    message = outcome_message(Outcome(AttemptState(result.result.value), None), step=result.step)
    for name, value in result.metrics.items():
        message.metrics[name] = value
    if result.checks:
        message.validation_report.CopyFrom(report_to_proto(result.checks, result.not_run, "trainer"))
    message.replayed_weights_digest = result.replayed_weights_digest
    if result.artifact is not None and result.artifact_kind is not None:
        message.manifest.CopyFrom(manifest_to_proto(result.artifact))
        message.artifact_kind = KIND_NUMBERS[result.artifact_kind.value]
    return message


def _dump_stacks_into(path: Path) -> None:
    """Makes the agent's signal write down what all threads do, from C: also while the interpreter is held."""
    faulthandler.register(DUMP_SIGNAL, file=os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))


def _branches_from(request: StartRequest) -> str:
    """Returns the digest of another job's checkpoint that the run is to begin from; empty when there is none."""
    begin = begins_from(request)
    return begin.manifest.digest if begin is not None and not request.replay_steps else ""


def _replay_to(request: StartRequest) -> int:
    """Returns the step after which a replay ends; 0 for a run."""
    return request.checkpoints[-1].step + request.replay_steps if request.replay_steps else 0


def _durable_every_steps(request: StartRequest, assignment: Assignment) -> int:
    """Returns how often checkpoints are copied to the blob store: never where nobody would ask for them."""
    every = request.spec.checkpointing.durable_every_steps
    is_off = assignment.is_kept or not assignment.registry or request.replay_steps
    return 0 if is_off else 1 if every is None else every


def _redirect_output(path: Path) -> None:
    """Sends what libraries print to the attempt's own file: the agent's pipes may be gone one day."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.close(null)
    faulthandler.enable()
