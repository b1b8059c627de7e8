"""The services of one client: lazily opened channels, one an address, and a stub on each."""

import _thread
import threading
from collections.abc import Iterator
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

    def CopyFrom(self, other: Self) -> None: ...


CLOSING_S = 2.0
"""Longest that a stopped program waits for its channels to close."""

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
        self, method: "grpc.UnaryUnaryMultiCallable[PageRequest, PageResponse]", request: PageRequest
    ) -> Iterator[PageResponse]:
        """Yields every page of a list method."""
        following = type(request)()
        following.CopyFrom(request)
        while True:
            page = self.call(method, following)
            yield page
            if not page.next_page_token:
                return
            following.page_token = page.next_page_token


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
        with self._lock:
            self._is_closed = True
            channels = tuple(self._channels.values())
            self._channels.clear()
        _close_whole(channels)

    def _channel(self, address: str) -> grpc.Channel:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("this tuneforge.Client is closed: make a new one")
            if address not in self._channels:
                self._channels[address] = open_channel(address, self._settings)
            return self._channels[address]


def _close_whole(channels: tuple[grpc.Channel, ...]) -> None:
    """Closes channels; Ctrl-C ends the wait for it, never the closing.

    A channel that is half closed makes its process wait for ever at its end. The thread is a bare one: one of
    `threading` has a start that Ctrl-C can tear too.
    """
    is_closed = False
    ended = _thread.allocate_lock()
    ended.acquire()

    def close() -> None:
        nonlocal is_closed
        try:
            for channel in channels:
                channel.close()
        finally:
            is_closed = True
            ended.release()

    try:
        _thread.start_new_thread(close, ())
    except RuntimeError:  # none is to be had: there are too many, or the interpreter ends
        close()
    try:
        ended.acquire()
    except BaseException:
        if not is_closed:
            ended.acquire(timeout=CLOSING_S)
        raise
