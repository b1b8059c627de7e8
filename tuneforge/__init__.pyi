# ruff: noqa: I001 - one import a module: ruff would make one of each name.
# The public names for type checkers and editors; `__init__.py` loads each when it is first used.

from tuneforge.aliases import (
    ABSENT as ABSENT,
    Alias as Alias,
    AliasChange as AliasChange,
    AliasWatch as AliasWatch,
    MoveKind as MoveKind,
)
from tuneforge.blobs import (
    BlobClient as BlobClient,
)
from tuneforge.client import (
    Client as Client,
)
from tuneforge.datasets import (
    DataFormat as DataFormat,
    Dataset as Dataset,
    DatasetRemark as DatasetRemark,
    DatasetRow as DatasetRow,
    DatasetSplit as DatasetSplit,
    DatasetStatistics as DatasetStatistics,
    DatasetVersion as DatasetVersion,
    RowShape as RowShape,
    Sizes as Sizes,
    SplitSide as SplitSide,
)
from tuneforge.deployments import (
    ChatMessage as ChatMessage,
    Completion as Completion,
    CompletionPiece as CompletionPiece,
    Deployment as Deployment,
    DeploymentFailed as DeploymentFailed,
    DeploymentState as DeploymentState,
    FinishReason as FinishReason,
    GenerationOptions as GenerationOptions,
    ServedModel as ServedModel,
)
from tuneforge.errors import (
    AlreadyExists as AlreadyExists,
    Cancelled as Cancelled,
    Conflict as Conflict,
    DataLoss as DataLoss,
    DeadlineExceeded as DeadlineExceeded,
    FailedPrecondition as FailedPrecondition,
    FieldViolation as FieldViolation,
    GateFailed as GateFailed,
    InternalError as InternalError,
    InvalidArgument as InvalidArgument,
    JobFailed as JobFailed,
    NotFound as NotFound,
    OutOfRange as OutOfRange,
    PermissionDenied as PermissionDenied,
    Reason as Reason,
    ResourceExhausted as ResourceExhausted,
    TuneforgeError as TuneforgeError,
    Unauthenticated as Unauthenticated,
    Unavailable as Unavailable,
)
from tuneforge.events import (
    AttemptOutcome as AttemptOutcome,
    AttemptResult as AttemptResult,
    CheckpointDurable as CheckpointDurable,
    CheckpointSaved as CheckpointSaved,
    DeviceMetrics as DeviceMetrics,
    DeviceSample as DeviceSample,
    EvaluationMetrics as EvaluationMetrics,
    Event as Event,
    Gap as Gap,
    LogCompacted as LogCompacted,
    LogLine as LogLine,
    LogSeverity as LogSeverity,
    Resolved as Resolved,
    ResumedFrom as ResumedFrom,
    Sample as Sample,
    Stall as Stall,
    StateChange as StateChange,
    StepMetrics as StepMetrics,
    TaskMetrics as TaskMetrics,
)
from tuneforge.explanation_values import (
    Blocker as Blocker,
    BlockerReason as BlockerReason,
    DelayedJob as DelayedJob,
    DisplacedJob as DisplacedJob,
    Forecast as Forecast,
    ForecastBasis as ForecastBasis,
    ForecastCalibration as ForecastCalibration,
    ForecastEvent as ForecastEvent,
    ForecastOutcome as ForecastOutcome,
    ForecastSource as ForecastSource,
    JobExplanation as JobExplanation,
    JobForecast as JobForecast,
    JobSimulation as JobSimulation,
    NodeFinding as NodeFinding,
    Preemptor as Preemptor,
    QueuePosition as QueuePosition,
    RunProgress as RunProgress,
    TimeInterval as TimeInterval,
)
from tuneforge.foresight import (
    SimulatedJob as SimulatedJob,
)
from tuneforge.gate_values import (
    Approval as Approval,
    ApprovalGate as ApprovalGate,
    CheckGate as CheckGate,
    Comparator as Comparator,
    ComparisonEvidence as ComparisonEvidence,
    ComparisonGate as ComparisonGate,
    GatePolicy as GatePolicy,
    GatePolicyChange as GatePolicyChange,
    GateKind as GateKind,
    GateReport as GateReport,
    GateResult as GateResult,
    MetricGate as MetricGate,
    RecordedEvaluation as RecordedEvaluation,
    SliceEvidence as SliceEvidence,
)
from tuneforge.imports import (
    ImportOptions as ImportOptions,
    ImportPhase as ImportPhase,
    ImportProgress as ImportProgress,
    package_path as package_path,
)
from tuneforge.job_filters import JobFilter as JobFilter
from tuneforge.job_filters import JobOrder as JobOrder
from tuneforge.job_changes import JobChange as JobChange
from tuneforge.job_changes import JobChangeKind as JobChangeKind
from tuneforge.job_changes import JobsWatch as JobsWatch
from tuneforge.job_lifecycle import ChangedJobs as ChangedJobs
from tuneforge.job_lifecycle import JobProblem as JobProblem
from tuneforge.job_options import FaultCount as FaultCount
from tuneforge.job_options import JobOptions as JobOptions
from tuneforge.job_options import RetryPolicy as RetryPolicy
from tuneforge.job_options import Reuse as Reuse
from tuneforge.job_values import (
    Attempt as Attempt,
    AttemptPart as AttemptPart,
    AttemptState as AttemptState,
    Calibration as Calibration,
    Checkpoint as Checkpoint,
    FaultBudget as FaultBudget,
    Interval as Interval,
    Job as Job,
    JobCondition as JobCondition,
    JobState as JobState,
    ResourceEstimate as ResourceEstimate,
    WorkLedger as WorkLedger,
)
from tuneforge.jobs import (
    JobCancelled as JobCancelled,
    JobHandle as JobHandle,
    JobWatch as JobWatch,
    WatchOptions as WatchOptions,
)
from tuneforge.lineage import (
    AffectedAlias as AffectedAlias,
    Consequences as Consequences,
    LineageEdge as LineageEdge,
    LineageGraph as LineageGraph,
    LineageKind as LineageKind,
    LineageNode as LineageNode,
    LineageRole as LineageRole,
    LineageState as LineageState,
    Revocation as Revocation,
    RevocationChange as RevocationChange,
)
from tuneforge.manifest import (
    IntegrityError as IntegrityError,
    InvalidManifest as InvalidManifest,
    Manifest as Manifest,
    ManifestFile as ManifestFile,
)
from tuneforge.model_values import (
    Lineage as Lineage,
    Model as Model,
    ModelFacts as ModelFacts,
    ModelFilter as ModelFilter,
    ModelProfile as ModelProfile,
    ModelVersion as ModelVersion,
    SizeClass as SizeClass,
    ValidationReport as ValidationReport,
)
from tuneforge.nodes import (
    Device as Device,
    Node as Node,
    NodeDrain as NodeDrain,
    NodeState as NodeState,
)
from tuneforge.origins import (
    Source as Source,
)
from tuneforge.promotions import (
    Promotion as Promotion,
    PromotionChange as PromotionChange,
    PromotionState as PromotionState,
)
from tuneforge.queue_values import (
    Budget as Budget,
    BudgetPeriod as BudgetPeriod,
    Queue as Queue,
    QueueStatus as QueueStatus,
    Quota as Quota,
    Spending as Spending,
)
from tuneforge.queues import (
    QueueChange as QueueChange,
)
from tuneforge.queue_watch import QueueEntry as QueueEntry
from tuneforge.queue_watch import QueueNode as QueueNode
from tuneforge.queue_watch import QueueShare as QueueShare
from tuneforge.queue_watch import QueueView as QueueView
from tuneforge.queue_watch import QueueWatch as QueueWatch
from tuneforge.recipe_client import (
    RecipeInfo as RecipeInfo,
    RecipeProblem as RecipeProblem,
    RecipeResources as RecipeResources,
    ResolvedRecipe as ResolvedRecipe,
)
from tuneforge.records import (
    RecordCheck as RecordCheck,
)
from tuneforge.retention import (
    CollectedGarbage as CollectedGarbage,
    Deletion as Deletion,
    Holder as Holder,
    HolderKind as HolderKind,
    Pin as Pin,
    Retention as Retention,
)
from tuneforge.signatures import (
    Signature as Signature,
)
from tuneforge.signing import (
    SigningKey as SigningKey,
    VerificationProblem as VerificationProblem,
)
from tuneforge.specs.memory import (
    MemoryEstimate as MemoryEstimate,
)
from tuneforge.specs.scheduling import (
    PriorityClass as PriorityClass,
    Scheduling as Scheduling,
)
from tuneforge.specs.spec import (
    ActivationRecompute as ActivationRecompute,
    BaseModel as BaseModel,
    Checkpointing as Checkpointing,
    ComputeType as ComputeType,
    ContinuedPretrainingTask as ContinuedPretrainingTask,
    DataConfig as DataConfig,
    DataSource as DataSource,
    Evaluation as Evaluation,
    FullMethod as FullMethod,
    Guards as Guards,
    LearningRateSchedule as LearningRateSchedule,
    LoraMethod as LoraMethod,
    Merge as Merge,
    MergeMethod as MergeMethod,
    Optimization as Optimization,
    Optimizer as Optimizer,
    OverlongPolicy as OverlongPolicy,
    PreferenceLoss as PreferenceLoss,
    PreferenceTask as PreferenceTask,
    QloraMethod as QloraMethod,
    Quantization as Quantization,
    Resources as Resources,
    RewardModelTask as RewardModelTask,
    SupervisedTask as SupervisedTask,
    TrainingSpec as TrainingSpec,
    WeightFormat as WeightFormat,
)
from tuneforge.sweep_values import (
    Importances as Importances,
    RoundCost as RoundCost,
    Sweep as Sweep,
    SweepCost as SweepCost,
    SweepState as SweepState,
    Trial as Trial,
    TrialState as TrialState,
)
from tuneforge.sweeps import (
    suggested_space as suggested_space,
)
from tuneforge.telemetry import (
    ThrottleReason as ThrottleReason,
)
from tuneforge.values import (
    ArtifactKind as ArtifactKind,
    Failure as Failure,
    FaultClass as FaultClass,
    RunRecord as RunRecord,
    VersionRef as VersionRef,
)
from tuneforge.verification_values import (
    ReplayedStep as ReplayedStep,
    ResumeCertificate as ResumeCertificate,
    ResumeVerification as ResumeVerification,
)

__version__: str
