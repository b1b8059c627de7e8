"""Policies under a virtual clock: the planner of the scheduler, unchanged, on traces of clusters or made-up jobs."""
