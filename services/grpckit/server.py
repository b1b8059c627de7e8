"""A service as a process: checked, bound, serving, drained at SIGTERM, and gone with an exit code that says how.

    definition = ServiceDefinition(
        descriptor=registry_pb2.DESCRIPTOR.services_by_name["RegistryService"],
        add_to_server=registry_pb2_grpc.add_RegistryServiceServicer_to_server,
        servicer=servicer,
        policies={"GetModel": Policy("models.read", "name"), ...},
        close=database.close,
    )
    sys.exit(run(serve(definition, settings.server)))

What a single call passes is in `calls.py`; where a service may listen, in `binding.py`.
"""

import asyncio
import gc
import inspect
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc

from services.grpckit import logging
from services.grpckit.auth import Policy
from services.grpckit.binding import authenticator_for, bind, check_exposure, parts, refused_address
from services.grpckit.calls import Gate
from services.grpckit.folder_lock import StartRefused
from services.grpckit.health import Health
from services.grpckit.interceptors import CallInterceptor
from services.grpckit.limits import Limits
from services.grpckit.metrics import ServerMetrics, serve_page
from services.grpckit.parent import end_with_parent, forget_parent
from services.grpckit.reflection import add_reflection
from services.grpckit.settings import ServerSettings

EXIT_OK = 0
EXIT_FAULT = 1
"""EX_CONFIG: the port is taken, the data folder is locked, the schema is newer, the settings are wrong."""

_HEALTH = "grpc.health.v1.Health"
_log = logging.get_logger(__name__)
AsyncHook = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """What a service is made of."""

    descriptor: ServiceDescriptor
    """From the generated code: `registry_pb2.DESCRIPTOR.services_by_name["RegistryService"]`."""
    add_to_server: Callable[[Any, Any], None]
    """From the generated code: `add_RegistryServiceServicer_to_server`."""
    servicer: Any
    """Its methods are async, or async generators where the answer streams."""
    policies: Mapping[str, Policy]
    """Method name → who may call it. Every method of the descriptor has one, and nothing else."""
    start: AsyncHook | None = None
    """Called when the port is bound and before the first call is taken: open the database, start loops."""
    ready: Callable[[], Awaitable[object]] | None = None
    """Returns once the service answers its callers; until then its name is NOT_SERVING. None: from the start."""
    drain: AsyncHook | None = None
    """Called at SIGTERM while calls still run: end watches, save work. Bounds its own time."""
    close: AsyncHook | None = None
    """Called last, also when `start` failed: close the database."""
    listening: Callable[[str], Awaitable[None]] | None = None
    """Called with `host:port` once calls are taken: register elsewhere."""

    def policy_by_method(self) -> dict[str, Policy]:
        """Returns full method → policy.

        Raises:
            StartRefused: A method has no policy, a policy has no method, or the field that names the project is wrong.
        """
        methods = {method.name: method for method in self.descriptor.methods}
        problems = [f"{name} has no policy" for name in methods if name not in self.policies]
        problems += [f"a policy names {name}, which is no method" for name in self.policies if name not in methods]
        for name, method in methods.items():
            path = self.policies[name].project_from if name in self.policies else None
            if path is not None and method.client_streaming:
                problems.append(f"{name} streams requests: it calls context.require_project, project_from must be None")
            elif path is not None and not _is_text_field(method.input_type, path):
                problems.append(f"the policy of {name} takes the project from {path}, which is no text of its request")
            problems += self._method_problems(method)
        if problems:
            raise StartRefused(f"{self.descriptor.full_name} cannot be served: {'; '.join(problems)}")
        return {f"/{self.descriptor.full_name}/{name}": self.policies[name] for name in methods}

    def _method_problems(self, method: MethodDescriptor) -> list[str]:
        behaviour = getattr(self.servicer, method.name, None)
        if method.server_streaming:
            return [] if inspect.isasyncgenfunction(behaviour) else [f"{method.name} is no async generator"]
        return [] if inspect.iscoroutinefunction(behaviour) else [f"{method.name} is no async method"]


def _is_text_field(message: Descriptor, path: str) -> bool:
    *parents, last = path.split(".")
    for name in parents:
        parent = message.fields_by_name.get(name)
        if parent is None or parent.message_type is None:
            return False
        message = parent.message_type
    found = message.fields_by_name.get(last)
    return found is not None and found.type == FieldDescriptor.TYPE_STRING


@dataclass(slots=True)
class Server:
    """One service in one event loop; `serve` puts signals and an exit code around it."""

    definition: ServiceDefinition
    settings: ServerSettings
    address: str = ""
    """`host:port` that calls are taken at; set by `start`."""
    metrics_address: str = ""
    """`host:port` of `/metrics`; empty when it is off."""
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    is_stopped: bool = False
    """Whether `stop` was called."""
    _gate: Gate = field(init=False)
    _server: grpc.aio.Server | None = None
    _health: Health = field(init=False)
    _page: asyncio.Server | None = None
    _loop_watch: asyncio.Task[None] | None = None
    _ready: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Binds, calls the service's `start`, and takes calls.

        Raises:
            StartRefused: It must not or cannot start; everything is closed again.
        """
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise

    async def _start(self) -> None:
        settings, definition = self.settings, self.definition
        policies = definition.policy_by_method()
        check_exposure(settings)
        self._gate = Gate(
            authenticator=authenticator_for(settings),
            policies=policies,
            limits=Limits(settings.max_unary_calls, settings.max_streams, settings.max_streams_per_principal),
            metrics=self.metrics,
            unary_deadline_s=settings.unary_deadline_s,
        )
        self._server = server = grpc.aio.server(
            interceptors=[CallInterceptor(self._gate)], options=server_options(settings)
        )
        name = definition.descriptor.full_name
        self._health = Health([name])
        methods = _Methods(server)
        definition.add_to_server(definition.servicer, methods)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, methods)  # type: ignore[no-untyped-call]
        add_reflection(server, [name, _HEALTH])
        address = bind(server, settings)
        if settings.metrics_listen:
            self._page, self.metrics_address = await _bind_page(self.metrics, settings.metrics_listen)
        if definition.start is not None:
            await definition.start()
        await server.start()
        self.address = address
        self._loop_watch = asyncio.create_task(self.metrics.measure_loop())
        if definition.ready is None:
            self._health.set_serving()
        else:
            self._health.set_alive()
            self._ready = asyncio.create_task(self._get_ready(definition.ready))
        if definition.listening is not None:
            await definition.listening(address)

    async def _get_ready(self, ready: Callable[[], Awaitable[object]]) -> None:
        await ready()
        self._health.set_serving()

    async def stop(self, grace_s: float | None = None) -> None:
        """Drains and ends: NOT_SERVING, the service's `drain`, running calls, the service's `close`.

        Args:
            grace_s: Seconds that running calls get; None takes the settings' `drain_s`.
        """
        self.is_stopped = True
        try:
            self._gate.draining.set()
            self._health.end()
            if self.definition.drain is not None:
                await self.definition.drain()
        except Exception:  # noqa: BLE001 - whatever the drain meets, the rest of the end must still happen
            _log.error("the drain failed", exc_info=True)
        finally:
            await self._close(self.settings.drain_s if grace_s is None else grace_s)

    async def _close(self, grace_s: float = 0.0) -> None:
        if self._server is not None:
            if not self.address:
                # A server that was bound but never started keeps its port until it is collected; this gives it back.
                self._gate.draining.set()
                await self._server.start()
            await self._server.stop(grace_s)
        for task in (self._loop_watch, self._ready):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._page is not None:
            self._page.close()
            await self._page.wait_closed()
        if self.definition.close is not None:
            await self.definition.close()


class _Methods:
    """Adds methods to a server, as generated code does, without registering each with gRPC.

    gRPC waits for the next call of each registered method, and begins to wait for all of them anew after every call:
    with fifty methods, that costs a call a tenth of a millisecond. Those that are not registered are found by name.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, object]) -> None:
        """Leaves it."""


def server_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Returns gRPC's options for a server."""
    most_calls = settings.max_streams + settings.max_unary_calls
    return [
        # With SO_REUSEPORT a second process binds the same port in silence and takes half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Above what `limits.py` allows, which refuses with a reason; here the client would wait without one.
        ("grpc.max_concurrent_streams", most_calls),
        # gRPC cancels some of more than 1000 calls that come in one burst, before anybody can give them a reason: a
        # thousand watchers that come back after a restart are such a burst.
        ("grpc.server.max_pending_requests", most_calls),
        ("grpc.server.max_pending_requests_hard_limit", 2 * most_calls),
        # Clients ping every 30 s. The name with `recv` in it, found in documents, is ignored.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Finds watchers whose machine vanished without a word.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


async def _bind_page(metrics: ServerMetrics, address: str) -> tuple[asyncio.Server, str]:
    host, port = parts(address)
    try:
        page = await serve_page(metrics, host, port)
    except OSError as error:
        raise refused_address(address, error) from None
    bound = page.sockets[0].getsockname()[1]
    return page, f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"


async def serve(definition: ServiceDefinition, settings: ServerSettings) -> int:
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once.

    When it is ready it prints one line on stdout, `tuneforge <service> listening on <host>:<port> metrics on
    <host>:<port>`; logs go to stderr.

    Args:
        definition: The service.
        settings: Where and how to serve.

    Returns:
        The exit code: 0 after a drain, 78 when it could not start, with one clear line on stderr.
    """
    logging.configure(settings.service, settings.log_level)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        forget_parent()
        ending.set()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)  # the kernel acts on the second one, even if the loop is blocked
        _log.info("draining", signal=number.name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    server = Server(definition, settings)
    try:
        await server.start()
    except StartRefused as error:
        return refuse(settings.service, error)
    if settings.tokens_file is None:
        _log.warning("no tokens are configured: everyone on this machine is the principal 'local' with all roles")
    gc.freeze()  # what is loaded stays: a collection in the midst of a call need not walk over it
    metrics = f" metrics on {server.metrics_address}" if server.metrics_address else ""
    print(f"tuneforge {settings.service} listening on {server.address}{metrics}", flush=True)  # noqa: T201
    await ending.wait()
    await server.stop()
    _log.info("ended")
    return EXIT_OK


def refuse(service: str, error: StartRefused) -> int:
    """Tells on stderr why a service does not start, and returns the exit code: 78, or 75 when it may be tried again."""
    for line in str(error).splitlines():
        print(f"tuneforge {service}: {line}" if service else f"tuneforge: {line}", file=sys.stderr, flush=True)  # noqa: T201
    return error.exit_code


def run(main: Coroutine[Any, Any, int], *, service: str = "") -> int:
    """Runs a service's main coroutine and returns its exit code, for `sys.exit`.

    Args:
        main: `serve(...)`, or a coroutine that reads the settings, opens what it needs and awaits `serve`.
        service: Name for the line on stderr.

    Returns:
        What `main` returned; 78 for a `StartRefused` (wrong settings, a locked folder), 130 for Ctrl-C before `serve`
        was reached.
    """
    end_with_parent()
    try:
        return asyncio.run(main)
    except StartRefused as error:
        return refuse(service, error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback at the user, the log has it
        _log.error("the service ended by a fault", exc_info=True)
        print(f"tuneforge {service}: ended by a fault ({type(error).__name__}); the log has it", file=sys.stderr)  # noqa: T201
        return EXIT_FAULT
