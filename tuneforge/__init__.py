"""Tuneforge: fine-tuning as a service that other backend services call.

    import tuneforge

    with tuneforge.Client() as client:
        job = client.jobs.create("spec.json")
        for event in job.watch():
            print(event.kind, event.payload)
        print(job.result().version)

The names below are the public ones. They are loaded when they are first used: services import parts of this package
where neither gRPC nor protobuf may be loaded, and the command line starts quickly. Type checkers and editors read
`__init__.pyi`, which has the same names; a test holds the two equal.
"""

import importlib
from typing import Any, Final

_HOMES: Final[dict[str, str]] = {
    "aliases": "ABSENT Alias AliasChange AliasWatch MoveKind",
    "blobs": "BlobClient",
    "client": "Client",
    "datasets": (
        "DataFormat Dataset DatasetRemark DatasetRow DatasetSplit DatasetStatistics DatasetVersion RowShape Sizes "
        "SplitSide"
    ),
    "deployments": (
        "ChatMessage Completion CompletionPiece Deployment DeploymentFailed DeploymentState FinishReason "
        "GenerationOptions ServedModel"
    ),
    "errors": (
        "AlreadyExists Cancelled Conflict DataLoss DeadlineExceeded FailedPrecondition FieldViolation GateFailed "
        "InternalError InvalidArgument JobFailed NotFound OutOfRange PermissionDenied Reason ResourceExhausted "
        "TuneforgeError Unauthenticated Unavailable"
    ),
    "events": (
        "AttemptOutcome AttemptResult CheckpointDurable CheckpointSaved DeviceMetrics DeviceSample "
        "EvaluationMetrics Event Gap LogCompacted LogLine LogSeverity Resolved ResumedFrom Sample Stall "
        "StateChange StepMetrics TaskMetrics"
    ),
    "explanation_values": (
        "Blocker BlockerReason DelayedJob DisplacedJob Forecast ForecastBasis ForecastCalibration ForecastEvent "
        "ForecastOutcome ForecastSource JobExplanation JobForecast JobSimulation NodeFinding Preemptor QueuePosition "
        "RunProgress TimeInterval"
    ),
    "foresight": "SimulatedJob",
    "gate_values": (
        "Approval ApprovalGate CheckGate Comparator ComparisonEvidence ComparisonGate GatePolicy GatePolicyChange "
        "GateKind GateReport GateResult MetricGate RecordedEvaluation SliceEvidence"
    ),
    "imports": "ImportOptions ImportPhase ImportProgress package_path",
    "job_filters": "JobFilter JobOrder",
    "job_changes": "JobChange JobChangeKind JobsWatch",
    "job_lifecycle": "ChangedJobs JobProblem",
    "job_options": "FaultCount JobOptions RetryPolicy Reuse",
    "job_values": (
        "Attempt AttemptPart AttemptState Calibration Checkpoint FaultBudget Interval Job JobCondition JobState "
        "ResourceEstimate WorkLedger"
    ),
    "jobs": "JobCancelled JobHandle JobWatch WatchOptions",
    "lineage": (
        "AffectedAlias Consequences LineageEdge LineageGraph LineageKind LineageNode LineageRole LineageState "
        "Revocation RevocationChange"
    ),
    "manifest": "IntegrityError InvalidManifest Manifest ManifestFile",
    "model_values": "Lineage Model ModelFacts ModelFilter ModelProfile ModelVersion SizeClass ValidationReport",
    "nodes": "Device Node NodeDrain NodeState",
    "origins": "Source",
    "promotions": "Promotion PromotionChange PromotionState",
    "queue_values": "Budget BudgetPeriod Queue QueueStatus Quota Spending",
    "queues": "QueueChange",
    "queue_watch": "QueueEntry QueueNode QueueShare QueueView QueueWatch",
    "recipe_client": "RecipeInfo RecipeProblem RecipeResources ResolvedRecipe",
    "records": "RecordCheck",
    "retention": "CollectedGarbage Deletion Holder HolderKind Pin Retention",
    "signatures": "Signature",
    "signing": "SigningKey VerificationProblem",
    "specs.memory": "MemoryEstimate",
    "specs.scheduling": "PriorityClass Scheduling",
    "specs.spec": (
        "ActivationRecompute BaseModel Checkpointing ComputeType ContinuedPretrainingTask DataConfig DataSource "
        "Evaluation FullMethod Guards LearningRateSchedule LoraMethod Merge MergeMethod Optimization Optimizer "
        "OverlongPolicy PreferenceLoss PreferenceTask QloraMethod Quantization Resources RewardModelTask "
        "SupervisedTask TrainingSpec WeightFormat"
    ),
    "sweep_values": "Importances RoundCost Sweep SweepCost SweepState Trial TrialState",
    "sweeps": "suggested_space",
    "telemetry": "ThrottleReason",
    "values": "ArtifactKind Failure FaultClass RunRecord VersionRef",
    "verification_values": "ReplayedStep ResumeCertificate ResumeVerification",
}

__all__ = ["__version__", *(name for names in _HOMES.values() for name in names.split())]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tuneforge")
    for home, names in _HOMES.items():
        if name in names.split():
            value = getattr(importlib.import_module(f"tuneforge.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'tuneforge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
