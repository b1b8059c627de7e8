"""Benchmarks for a machine with a GPU: `python -m benchmarks.gpu`. Unproven until such a machine has run them."""
