"""Who may call which method of the scheduler; one row a method, deny by default."""

from __future__ import annotations

from services.grpckit.auth import Policy

POLICIES: dict[str, Policy] = {
    "CreateJob": Policy("jobs.write", "parent"),
    "EstimateResources": Policy("jobs.read", "parent"),
    "ListCalibrations": Policy("nodes.read"),
    "GetJob": Policy("jobs.read", "name"),
    "ListJobs": Policy("jobs.read", "parent"),
    "ExplainJob": Policy("jobs.read", "name"),
    "SimulateJob": Policy("jobs.read", "job.parent"),
    "ListForecasts": Policy("jobs.read", "parent"),
    "CancelJob": Policy("jobs.write", "name"),
    "PauseJob": Policy("jobs.write", "name"),
    "ResumeJob": Policy("jobs.write", "name"),
    "WatchJob": Policy("jobs.read", "name"),
    "WatchQueue": Policy("jobs.read"),
    "WatchJobs": Policy("jobs.read"),  # of one project or of all: it looks itself what the caller may see
    "ListAttempts": Policy("jobs.read", "parent"),
    "ListCheckpoints": Policy("jobs.read", "parent"),
    "GetCheckpoint": Policy("jobs.read", "name"),
    "PinCheckpoint": Policy("jobs.write", "name"),
    "UnpinCheckpoint": Policy("jobs.write", "name"),
    "DeleteCheckpoint": Policy("jobs.write", "name"),
    "VerifyResume": Policy("jobs.write", "name"),
    # Shares are seen beside those of other projects: the method looks at the caller's projects itself.
    "ListQueues": Policy("queues.read"),
    "GetQueue": Policy("queues.read", "name"),
    "UpdateQueue": Policy("queues.admin", "queue.name"),
    "CreateSweep": Policy("jobs.write", "parent"),
    "GetSweep": Policy("jobs.read", "name"),
    "ListSweeps": Policy("jobs.read", "parent"),
    "WatchSweep": Policy("jobs.read", "name"),
    "CancelSweep": Policy("jobs.write", "name"),
    "PauseSweep": Policy("jobs.write", "name"),
    "ResumeSweep": Policy("jobs.write", "name"),
    "DeleteSweep": Policy("jobs.write", "name"),
    "GetTrial": Policy("jobs.read", "name"),
    "ListTrials": Policy("jobs.read", "parent"),
    "GetSweepImportances": Policy("jobs.read", "name"),
    "RegisterNode": Policy("nodes.internal"),
    "Heartbeat": Policy("nodes.internal", is_quiet=True),
    "ListNodes": Policy("nodes.read"),
    "DrainNode": Policy("nodes.admin"),
    "UndrainNode": Policy("nodes.admin"),
    "GetWorkLedger": Policy("jobs.read", "parent"),
}
