"""Tuneforge: fine-tuning as a service that other backend services call.

    import tuneforge

    with tuneforge.Client() as client:
        job = client.jobs.create("spec.json")
        for event in job.watch():
            print(event.kind, event.payload)
        print(job.result().version)

The names below are the public ones. They are loaded when they are first used: services import parts of this package
where neither gRPC nor protobuf may be loaded, and the command line starts quickly.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tuneforge.aliases import ABSENT, Alias, AliasChange, AliasWatch, MoveKind
    from tuneforge.blobs import BlobClient
    from tuneforge.client import Client
    from tuneforge.datasets import (
        DataFormat,
        Dataset,
        DatasetRemark,
        DatasetRow,
        DatasetSplit,
        DatasetStatistics,
        DatasetVersion,
        RowShape,
        Sizes,
        SplitSide,
    )
    from tuneforge.deployments import (
        ChatMessage,
        Completion,
        CompletionPiece,
        Deployment,
        DeploymentFailed,
        DeploymentState,
        FinishReason,
        GenerationOptions,
        ServedModel,
    )
    from tuneforge.errors import (
        AlreadyExists,
        Cancelled,
        Conflict,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        FieldViolation,
        GateFailed,
        InternalError,
        InvalidArgument,
        JobFailed,
        NotFound,
        OutOfRange,
        PermissionDenied,
        Reason,
        ResourceExhausted,
        TuneforgeError,
        Unauthenticated,
        Unavailable,
    )
    from tuneforge.events import (
        AttemptOutcome,
        AttemptResult,
        CheckpointDurable,
        CheckpointSaved,
        DeviceMetrics,
        DeviceSample,
        EvaluationMetrics,
        Event,
        Gap,
        LogLine,
        LogSeverity,
        Resolved,
        ResumedFrom,
        Sample,
        Stall,
        StateChange,
        StepMetrics,
        TaskMetrics,
    )
    from tuneforge.gate_values import (
        Approval,
        ApprovalGate,
        CheckGate,
        Comparator,
        ComparisonEvidence,
        ComparisonGate,
        GatePolicy,
        GatePolicyChange,
        GateReport,
        GateResult,
        MetricGate,
        RecordedEvaluation,
        SliceEvidence,
    )
    from tuneforge.imports import ImportOptions, ImportPhase, ImportProgress, package_path
    from tuneforge.job_values import Attempt, AttemptPart, AttemptState, Checkpoint, Job, JobCondition, JobState
    from tuneforge.jobs import JobCancelled, JobHandle, JobWatch, WatchOptions
    from tuneforge.lineage import (
        AffectedAlias,
        Consequences,
        LineageEdge,
        LineageGraph,
        LineageKind,
        LineageNode,
        LineageRole,
        LineageState,
        Revocation,
        RevocationChange,
    )
    from tuneforge.manifest import IntegrityError, InvalidManifest, Manifest, ManifestFile
    from tuneforge.model_values import (
        Lineage,
        Model,
        ModelFacts,
        ModelFilter,
        ModelProfile,
        ModelVersion,
        SizeClass,
        ValidationReport,
    )
    from tuneforge.nodes import Device, Node, NodeState
    from tuneforge.origins import Source
    from tuneforge.promotions import Promotion, PromotionChange, PromotionState
    from tuneforge.recipe_client import RecipeInfo, RecipeProblem, RecipeResources, ResolvedRecipe
    from tuneforge.records import RecordCheck, RunRecord
    from tuneforge.retention import CollectedGarbage, Deletion, Holder, HolderKind, Pin, Retention
    from tuneforge.signatures import Signature
    from tuneforge.signing import SigningKey, VerificationProblem
    from tuneforge.specs.spec import (
        BaseModel,
        Checkpointing,
        ComputeType,
        ContinuedPretrainingTask,
        DataConfig,
        DataSource,
        Evaluation,
        FullMethod,
        Guards,
        LearningRateSchedule,
        LoraMethod,
        Optimization,
        Optimizer,
        OverlongPolicy,
        PreferenceLoss,
        PreferenceTask,
        QloraMethod,
        Quantization,
        Resources,
        RewardModelTask,
        SupervisedTask,
        TrainingSpec,
    )
    from tuneforge.telemetry import ThrottleReason
    from tuneforge.values import ArtifactKind, Failure, FaultClass, VersionRef
    from tuneforge.verification_values import ResumeCertificate

    __version__: str

_HOMES: Final[dict[str, str]] = {
    "verification_values": "ResumeCertificate",
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
        "InternalError "
        "InvalidArgument JobFailed NotFound OutOfRange PermissionDenied Reason ResourceExhausted "
        "TuneforgeError Unauthenticated Unavailable"
    ),
    "events": (
        "AttemptOutcome AttemptResult CheckpointDurable CheckpointSaved DeviceMetrics DeviceSample EvaluationMetrics "
        "Event Gap LogLine LogSeverity Resolved ResumedFrom Sample Stall StateChange StepMetrics TaskMetrics"
    ),
    "gate_values": (
        "Approval ApprovalGate CheckGate Comparator ComparisonEvidence ComparisonGate GatePolicy GatePolicyChange "
        "GateReport GateResult MetricGate RecordedEvaluation SliceEvidence"
    ),
    "imports": "ImportOptions ImportPhase ImportProgress package_path",
    "job_values": "Attempt AttemptPart AttemptState Checkpoint Job JobCondition JobState",
    "jobs": "JobCancelled JobHandle JobWatch WatchOptions",
    "lineage": (
        "AffectedAlias Consequences LineageEdge LineageGraph LineageKind LineageNode LineageRole LineageState "
        "Revocation RevocationChange"
    ),
    "manifest": "IntegrityError InvalidManifest Manifest ManifestFile",
    "model_values": "Lineage Model ModelFacts ModelFilter ModelProfile ModelVersion SizeClass ValidationReport",
    "nodes": "Device Node NodeState",
    "origins": "Source",
    "promotions": "Promotion PromotionChange PromotionState",
    "recipe_client": "RecipeInfo RecipeProblem RecipeResources ResolvedRecipe",
    "retention": "CollectedGarbage Deletion Holder HolderKind Pin Retention",
    "records": "RecordCheck RunRecord",
    "signatures": "Signature",
    "signing": "SigningKey VerificationProblem",
    "specs.spec": (
        "BaseModel Checkpointing ComputeType ContinuedPretrainingTask DataConfig DataSource Evaluation FullMethod "
        "Guards LearningRateSchedule LoraMethod Optimization Optimizer OverlongPolicy PreferenceLoss PreferenceTask "
        "QloraMethod Quantization Resources RewardModelTask SupervisedTask TrainingSpec"
    ),
    "telemetry": "ThrottleReason",
    "values": "ArtifactKind Failure FaultClass VersionRef",
}

__all__ = [
    "ABSENT",
    "AffectedAlias",
    "Alias",
    "AliasChange",
    "AliasWatch",
    "AlreadyExists",
    "Approval",
    "ApprovalGate",
    "ArtifactKind",
    "Attempt",
    "AttemptOutcome",
    "AttemptPart",
    "AttemptResult",
    "AttemptState",
    "BaseModel",
    "BlobClient",
    "Cancelled",
    "ChatMessage",
    "CheckGate",
    "Checkpoint",
    "CheckpointDurable",
    "CheckpointSaved",
    "Checkpointing",
    "Client",
    "CollectedGarbage",
    "Comparator",
    "ComparisonEvidence",
    "ComparisonGate",
    "Completion",
    "CompletionPiece",
    "ComputeType",
    "Conflict",
    "Consequences",
    "ContinuedPretrainingTask",
    "DataConfig",
    "DataFormat",
    "DataLoss",
    "DataSource",
    "Dataset",
    "DatasetRemark",
    "DatasetRow",
    "DatasetSplit",
    "DatasetStatistics",
    "DatasetVersion",
    "DeadlineExceeded",
    "Deletion",
    "Deployment",
    "DeploymentFailed",
    "DeploymentState",
    "Device",
    "DeviceMetrics",
    "DeviceSample",
    "Evaluation",
    "EvaluationMetrics",
    "Event",
    "FailedPrecondition",
    "Failure",
    "FaultClass",
    "FieldViolation",
    "FinishReason",
    "FullMethod",
    "Gap",
    "GateFailed",
    "GatePolicy",
    "GatePolicyChange",
    "GateReport",
    "GateResult",
    "GenerationOptions",
    "Guards",
    "Holder",
    "HolderKind",
    "ImportOptions",
    "ImportPhase",
    "ImportProgress",
    "IntegrityError",
    "InternalError",
    "InvalidArgument",
    "InvalidManifest",
    "Job",
    "JobCancelled",
    "JobCondition",
    "JobFailed",
    "JobHandle",
    "JobState",
    "JobWatch",
    "LearningRateSchedule",
    "Lineage",
    "LineageEdge",
    "LineageGraph",
    "LineageKind",
    "LineageNode",
    "LineageRole",
    "LineageState",
    "LogLine",
    "LogSeverity",
    "LoraMethod",
    "Manifest",
    "ManifestFile",
    "MetricGate",
    "Model",
    "ModelFacts",
    "ModelFilter",
    "ModelProfile",
    "ModelVersion",
    "MoveKind",
    "Node",
    "NodeState",
    "NotFound",
    "Optimization",
    "Optimizer",
    "OutOfRange",
    "OverlongPolicy",
    "PermissionDenied",
    "Pin",
    "PreferenceLoss",
    "PreferenceTask",
    "Promotion",
    "PromotionChange",
    "PromotionState",
    "QloraMethod",
    "Quantization",
    "Reason",
    "RecipeInfo",
    "RecipeProblem",
    "RecipeResources",
    "RecordCheck",
    "RecordedEvaluation",
    "Resolved",
    "ResolvedRecipe",
    "ResourceExhausted",
    "Resources",
    "ResumeCertificate",
    "ResumedFrom",
    "Retention",
    "Revocation",
    "RevocationChange",
    "RewardModelTask",
    "RowShape",
    "RunRecord",
    "Sample",
    "ServedModel",
    "Signature",
    "SigningKey",
    "SizeClass",
    "Sizes",
    "SliceEvidence",
    "Source",
    "SplitSide",
    "Stall",
    "StateChange",
    "StepMetrics",
    "SupervisedTask",
    "TaskMetrics",
    "ThrottleReason",
    "TrainingSpec",
    "TuneforgeError",
    "Unauthenticated",
    "Unavailable",
    "ValidationReport",
    "VerificationProblem",
    "VersionRef",
    "WatchOptions",
    "__version__",
    "package_path",
]


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
