"""Benchmarks for a machine with a GPU: `python -m benchmarks.gpu`. Unproven until such a machine has run them."""

import os

os.environ["TORCHDYNAMO_DISABLE"] = "0"  # some rows are compiled layer by layer; the services compile nothing
