"""A scheduler with one job of scripted events, on a real socket, whose watch streams break where a test wants.

It is for tests of the SDK and the command line that need faults at exact places; everything else is tested against the
real scheduler.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.support.patience import TEST_LIMIT_S
from tuneforge.v1 import events_pb2
from tuneforge.v1 import jobs_pb2 as jobs
from tuneforge.v1 import nodes_pb2 as nodes
from tuneforge.v1 import scheduler_pb2 as pb
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server

JOB = "projects/default/jobs/my-job"


@dataclass
class FakeScheduler:
    """What it answers, and what it was asked."""

    job: jobs.Job = field(default_factory=lambda: jobs.Job(name=JOB, state=jobs.JOB_STATE_RUNNING))
    events: list[events_pb2.Event] = field(default_factory=list)
    end: jobs.JobState.ValueType = jobs.JOB_STATE_SUCCEEDED
    estimate: jobs.ResourceEstimate = field(default_factory=jobs.ResourceEstimate)
    batch: int = 3
    cut: Callable[[int, int], str] = field(default=lambda _stream, _message: "")
    """(number of the stream, of the message in it, both from 0) -> how the stream ends there; empty: it goes on."""
    refusals: int = 0
    is_slow: bool = False
    """Answers nothing until it is released."""
    requests: list[Any] = field(default_factory=list)
    headers: list[dict[str, str | bytes]] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    streams: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    """Ends the silence of a slow service, and of streams that were cut with `silence`."""

    def note(self, request: Any, context: grpc.ServicerContext) -> None:
        """Remembers a call, and refuses it while `refusals` are left."""
        self.requests.append(request)
        self.headers.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        if self.is_slow:
            self.released.wait(TEST_LIMIT_S)
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")


class _Servicer(SchedulerServiceServicer):
    def __init__(self, fake: FakeScheduler) -> None:
        self.fake = fake

    def CreateJob(self, request: pb.CreateJobRequest, context: Any) -> jobs.Job:
        self.fake.note(request, context)
        job = jobs.Job(name=f"{request.parent}/jobs/{request.job_id or 'job-1'}", spec=request.spec)
        job.state = jobs.JOB_STATE_QUEUED
        return job

    def EstimateResources(self, request: pb.EstimateResourcesRequest, context: Any) -> jobs.ResourceEstimate:
        self.fake.note(request, context)
        return self.fake.estimate

    def ListCalibrations(self, request: pb.ListCalibrationsRequest, context: Any) -> pb.ListCalibrationsResponse:
        self.fake.note(request, context)
        ratio = jobs.Interval(expected=1.02, lowest=0.9, highest=1.1)
        rate = jobs.Interval(expected=2e11, lowest=1e11, highest=3e11)
        row = jobs.Calibration(
            family="LlamaForCausalLM", method="lora", compute="bf16", device="cpu", runs=4,
            memory_ratio=ratio, flops_per_second=rate,
        )  # fmt: skip
        return pb.ListCalibrationsResponse(calibrations=[row])

    def GetJob(self, request: pb.GetJobRequest, context: Any) -> jobs.Job:
        self.fake.note(request, context)
        if request.name != self.fake.job.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.name} does not exist")
        return self.fake.job

    def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        self.fake.note(request, context)
        return pb.ListJobsResponse(jobs=[self.fake.job])

    def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> jobs.Job:
        self.fake.note(request, context)
        self.fake.job.state = jobs.JOB_STATE_CANCELLED
        return self.fake.job

    def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        self.fake.note(request, context)
        capacity = nodes.NodeCapacity(cpu_millis=2000, memory_bytes=2**33, slots=1)
        node = nodes.Node(name="nodes/n1", address="127.0.0.1:7103", state=nodes.NODE_STATE_READY, capacity=capacity)
        return pb.ListNodesResponse(nodes=[node])

    def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> Iterator[pb.WatchJobResponse]:
        self.fake.note(request, context)
        stream, self.fake.streams = self.fake.streams, self.fake.streams + 1
        for number, response in enumerate(self._messages(int(request.resume_token or 0))):
            cut = self.fake.cut(stream, number)
            if cut == "silence":
                while context.is_active() and not self.fake.released.wait(0.05):
                    pass  # until it is released, or nobody listens any more
                return
            if cut == "draining":
                yield pb.WatchJobResponse(end=pb.EndOfStream(reason=pb.END_REASON_DRAINING))
                return
            if cut == "eof":
                return
            if cut:
                context.abort(grpc.StatusCode[cut], "cut")
            yield response

    def _messages(self, after: int) -> Iterator[pb.WatchJobResponse]:
        latest = len(self.fake.events)
        token = str(after)
        yield pb.WatchJobResponse(snapshot=self.fake.job, resume_token=token, latest_job_seq=latest)
        for start in range(after, latest, self.fake.batch):
            batch = self.fake.events[start : start + self.fake.batch]
            token = str(batch[-1].job_seq)
            yield pb.WatchJobResponse(
                events=events_pb2.EventBatch(events=batch), resume_token=token, latest_job_seq=latest
            )
            yield pb.WatchJobResponse(heartbeat=pb.WatchHeartbeat(), resume_token=token, latest_job_seq=latest)
        end = pb.EndOfStream(reason=pb.END_REASON_JOB_ENDED, state=self.fake.end)
        yield pb.WatchJobResponse(end=end, resume_token=token, latest_job_seq=latest)


@contextlib.contextmanager
def serve(
    fake: FakeScheduler, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """Serves on a free port of the loopback, or on a given one, and yields `host:port`; with credentials over TLS."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    add_SchedulerServiceServicer_to_server(_Servicer(fake), server)  # type: ignore[abstract]  # it answers what tests need
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        fake.released.set()
        server.stop(None).wait()
