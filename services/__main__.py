"""`python -m services`: the four services on loopback over one data folder, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from services.grpckit.parent import end_with_parent
from services.launcher import DEFAULT_PORTS, SERVICES, StartFailed, Suite, wait_for_end
from services.stores.ports import free_ports
from services.stores.programs import StoreFailed
from services.stores.real import RealStores

EXIT_CONFIGURATION = 78
EXIT_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Runs the suite; returns the exit code."""
    options = _options(argv)
    end_with_parent()  # where a command has started it for one run
    data = _data_folder(options)
    try:
        stores = RealStores(data / "stores") if options.stores == "real" else None
        suite = Suite(data=data, ports=_ports(options.port), stores=stores)
        _on_signals(signal.default_int_handler)
        suite.start()
    except StoreFailed as error:
        print(f"tuneforge: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except StartFailed as error:
        print(f"tuneforge: {error}", file=sys.stderr)
        if error.exit_code == EXIT_CONFIGURATION:
            print("for a second suite: python -m services --port N --data FOLDER", file=sys.stderr)
            return EXIT_CONFIGURATION
        return 1
    except KeyboardInterrupt:
        print("stopped before it was ready; nothing is left running", file=sys.stderr)
        return EXIT_INTERRUPTED
    stopping = threading.Event()
    _on_signals(lambda *_: stopping.set())
    _greet(suite)
    ended = wait_for_end(suite, stopping)
    if ended is None:
        print("stopping; running jobs save a checkpoint and go on at the next start", flush=True)
        suite.stop()
        return 0
    service, code = ended
    print(f"tuneforge: the {service} ended with exit code {code}:\n{suite.last_words(service)}", file=sys.stderr)
    if service == "trainer":
        suite.end_workers()
    suite.stop()
    print("everything is stopped; running jobs go on from their checkpoints at the next start", file=sys.stderr)
    return 1


def _on_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    folders = ".tuneforge/data, or .tuneforge/real with real stores"
    parser.add_argument("--data", type=Path, help=f"data folder (default: {folders})")
    parser.add_argument(
        "--stores",
        choices=("embedded", "real"),
        default="embedded",
        help="where metadata and blobs live: files in the data folder, or a PostgreSQL and an S3 server of their own, "
        "which are started and ended with the suite (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORTS["registry"],
        help="port of the registry; the others follow, metrics are 10 higher; 0: any free ports (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if options.port and not 1 <= options.port <= 65_500:
        parser.error(f"--port is {options.port}: use 1 to 65500, or 0 for any free ports")
    return options


def _data_folder(options: argparse.Namespace) -> Path:
    default = ".tuneforge/data" if options.stores == "embedded" else ".tuneforge/real"
    return Path(options.data or default).absolute()


def _ports(first: int) -> dict[str, int]:
    if first == 0:
        return dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    return {service: first + index for index, service in enumerate(SERVICES)}


def _greet(suite: Suite) -> None:
    for service in SERVICES:
        print(f"{service:<10} {suite.address(service)}   log {suite.log_path(service)}")
    if suite.stores is not None:
        print(f"PostgreSQL on 127.0.0.1:{suite.stores.postgres.port}, S3 at {suite.stores.s3.endpoint}")
    print(f"data in {suite.data}; Ctrl-C stops everything", flush=True)


if __name__ == "__main__":
    sys.exit(main())
