"""Why a job is where it is, and what comes next: explanations and forecasts, each promise held against what came.

`forward.py` runs the planner of the scheduler, unchanged, from this moment on; `forecast.py` makes intervals of such
runs; `blockers.py` and `places.py` say why a job waits; `promises.py` widens intervals by how often they were wrong.
`service.py` looks and answers; all else here is pure.
"""
