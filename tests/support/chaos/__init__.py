"""Faults on purpose: a simulated world, killed processes, broken connections."""
