"""The training engine: a run from its inputs to its artifact. Read `loop.py` first. Torch is imported here only."""
