"""The services of one client: lazily opened channels, one an address, and a stub on each."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import grpc

from tuneforge._transport import RetryPolicy, TransportSettings, call, open_channel
from tuneforge.v1.inference_pb2_grpc import InferenceServiceStub
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub
from tuneforge.v1.trainer_pb2_grpc import TrainerServiceStub

Stub = TypeVar("Stub", covariant=True)
Request = TypeVar("Request")
Response = TypeVar("Response")


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


class _PageRequest(Protocol):
    page_token: str
    page_size: int

    def CopyFrom(self, other: Self) -> None: ...


PageResponse = TypeVar("PageResponse", bound=_Page)
PageRequest = TypeVar("PageRequest", bound=_PageRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the services listen, each `host:port` or several with commas between."""

    registry: str = "127.0.0.1:7101"
    scheduler: str = "127.0.0.1:7102"
    trainer: str = "127.0.0.1:7103"
    inference: str = "127.0.0.1:7104"


@dataclass(frozen=True, slots=True)
class Service(Generic[Stub]):
    """One service as a client sees it."""

    name: str
    """`registry`, `scheduler`, `trainer` or `inference`."""
    address: str
    channel: grpc.Channel
    stub: Stub
    retry: RetryPolicy

    @property
    def peer(self) -> str:
        """The service and its address, for people."""
        return f"the {self.name}{' service' if self.name == 'inference' else ''} at {self.address}"

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        timeout_s: float | None = None,
    ) -> Response:
        """Makes one call of a method of `stub`; see `_transport.call`."""
        return call(method, request, timeout_s=timeout_s, retry=self.retry, peer=self.peer)

    def pages(
        self,
        method: "grpc.UnaryUnaryMultiCallable[PageRequest, PageResponse]",
        request: PageRequest,
        *,
        later_size: int = 0,
    ) -> Iterator[PageResponse]:
        """Yields every page of a list method.

        Args:
            method: A method of the stub.
            request: For the first page.
            later_size: Most entries of the pages after the first one, for lists of which a page is dear whatever its
                size, and of which many callers read the first page only; 0: as the request says.
        """
        following = type(request)()
        following.CopyFrom(request)
        while True:
            page = self.call(method, following)
            yield page
            if not page.next_page_token:
                return
            following.page_token = page.next_page_token
            if later_size:
                following.page_size = later_size


class Connections:
    """The four services; a channel is opened when its service is first asked for. Safe to use from several threads."""

    def __init__(self, addresses: Addresses, settings: TransportSettings, retry: RetryPolicy) -> None:
        self._addresses = addresses
        self._settings = settings
        self._retry = retry
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def registry(self) -> Service[RegistryServiceStub]:
        """The registry."""
        channel = self._channel(self._addresses.registry)
        return Service("registry", self._addresses.registry, channel, RegistryServiceStub(channel), self._retry)

    @property
    def scheduler(self) -> Service[SchedulerServiceStub]:
        """The scheduler."""
        channel = self._channel(self._addresses.scheduler)
        return Service("scheduler", self._addresses.scheduler, channel, SchedulerServiceStub(channel), self._retry)

    @property
    def trainer(self) -> Service[TrainerServiceStub]:
        """A trainer."""
        channel = self._channel(self._addresses.trainer)
        return Service("trainer", self._addresses.trainer, channel, TrainerServiceStub(channel), self._retry)

    @property
    def inference(self) -> Service[InferenceServiceStub]:
        """The inference service."""
        channel = self._channel(self._addresses.inference)
        return Service("inference", self._addresses.inference, channel, InferenceServiceStub(channel), self._retry)

    def close(self) -> None:
        """Closes every channel; what runs on them is cancelled. Closing twice is fine."""
        with _without_interrupts():
            with self._lock:
                self._is_closed = True
                channels = tuple(self._channels.values())
                self._channels.clear()
            for channel in channels:
                channel.close()

    def _channel(self, address: str) -> grpc.Channel:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("this tuneforge.Client is closed: make a new one")
            if address not in self._channels:
                self._channels[address] = open_channel(address, self._settings)
            return self._channels[address]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait for the end of the block.

    An exception in the middle of gRPC's close leaves a channel that the end of its process waits for, for ever. It
    stays in its thread: Ctrl-C may have left a lock of gRPC that this thread alone can still take.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are answered there only
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    answered = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in answered:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in answered.items():
            signal.signal(number, handler)
    for late in came[:1]:
        signal.raise_signal(late)
