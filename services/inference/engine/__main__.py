"""Starts an engine: `python -m services.inference.engine --connection FD --device auto --dtype auto --threads 0`.

The service at the other end of the connection gives orders; when it is gone, the engine ends.
"""

import argparse
import gc
import os
import signal
import socket
import sys


def main() -> None:
    """Runs the engine until its connection ends."""
    parser = argparse.ArgumentParser(prog="services.inference.engine")
    parser.add_argument("--connection", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--max-rows", type=int, default=64)
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the service ends its engines itself
    threads = options.threads or len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    gc.disable()  # nearly all that an import makes stays: to look through it again and again finds nothing

    import torch

    from services.grpckit import logging
    from services.inference.engine.models import Models
    from services.inference.engine.orders import Engine

    gc.freeze()
    gc.enable()
    logging.configure("inference-engine", options.log_level)
    torch.set_num_threads(threads)
    connection = socket.socket(fileno=options.connection)
    models = Models(device=options.device, dtype=options.dtype)
    Engine(connection, models, max_rows=options.max_rows).run()


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # taking torch apart would last seconds, and nothing here is worth keeping
