"""The training spec as frozen dataclasses, field by field as in `protos/tuneforge/v1/spec.proto`.

`None` (and 0 where 0 has no meaning of its own) says "not set"; `defaults.with_defaults` fills it in,
`validation.validate` lists what is wrong, `wire` converts to and from the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from tuneforge.specs.architecture import Architecture as Architecture
from tuneforge.specs.architecture import TensorShape as TensorShape


class OverlongPolicy(StrEnum):
    """What happens to a row with more tokens than `DataConfig.max_tokens`."""

    DROP = "drop"
    TRUNCATE = "truncate"
    REFUSE = "refuse"
    SPLIT = "split"


class PreferenceLoss(StrEnum):
    """What preference tuning minimises."""

    SIGMOID = "sigmoid"
    IPO = "ipo"


class Optimizer(StrEnum):
    """Update rules."""

    ADAMW = "adamw"
    SGD = "sgd"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW = "paged_adamw"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    ADAFACTOR = "adafactor"

    @property
    def unpaged(self) -> Optimizer:
        """The same rule with its state where the weights are."""
        return Optimizer(self.value.removeprefix("paged_"))


class LearningRateSchedule(StrEnum):
    """How the learning rate falls after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"
    WSD = "wsd"
    STEP = "step"


class ActivationRecompute(StrEnum):
    """What of a decoder block's forward pass is computed again in the backward pass."""

    AUTO = "auto"
    NONE = "none"
    SELECTIVE = "selective"
    FULL = "full"


class ComputeType(StrEnum):
    """Format of the matrix products."""

    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"
    FP16 = "fp16"


class Quantization(StrEnum):
    """How frozen weights are kept."""

    NF4 = "nf4"
    NF4_SINGLE = "nf4_single"
    INT8 = "int8"


class WeightFormat(StrEnum):
    """Number format of weights in files."""

    STORED = "stored"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The model that a run starts from; exactly one field is set."""

    model: str | None = None
    """Version or alias: `projects/{project}/models/{model}/versions|aliases/{id}`."""
    output_of_job: str | None = None
    """The job whose result is the base: `projects/{project}/jobs/{job}`."""
    local_path: str | None = None
    """Folder below the inputs folder of an unmanaged trainer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedTask:
    """Learn to continue a prompt with its completion; the loss counts completion tokens only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuedPretrainingTask:
    """Learn to continue texts: every token of a text is learned, and the token that ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceTask:
    """Learn to write the better one of two answers (DPO, arXiv 2305.18290); the reference is the base."""

    beta: float = 0.0
    """How far the model may go from the reference, > 0: the larger, the nearer it stays. 0: 0.1."""
    label_smoothing: float = 0.0
    """Share of pairs whose order is taken to be wrong, [0, 0.5); with SIGMOID alone."""
    loss: PreferenceLoss = PreferenceLoss.SIGMOID
    """What is minimised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelTask:
    """Learn to tell by a number how good an answer is (Bradley-Terry on pairs)."""


Task = SupervisedTask | ContinuedPretrainingTask | PreferenceTask | RewardModelTask


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraMethod:
    """Low-rank adapters (arXiv 2106.09685) beside frozen weights."""

    rank: int = 0
    """Width of the adapters, 1 to the smallest side of a target layer. 0: 16."""
    alpha: float = 0.0
    """Scale numerator, > 0. 0: twice the rank."""
    dropout: float | None = None
    """Probability that an input of an adapter is dropped in training, [0, 1). None: 0."""
    target_modules: tuple[str, ...] = ()
    """Names of the linear layers that get an adapter. Empty: all of the decoder blocks."""
    use_rslora: bool = False
    """Scales by alpha / sqrt(rank) in place of alpha / rank (arXiv 2312.03732)."""
    use_dora: bool = False
    """Learns a magnitude for each output beside the adapters (arXiv 2402.09353); needs a whole model as base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QloraMethod:
    """Low-rank adapters beside quantised weights (arXiv 2305.14314)."""

    lora: LoraMethod = field(default_factory=LoraMethod)
    """The adapters."""
    quantization: Quantization = Quantization.NF4
    """How the linear layers of the decoder blocks are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullMethod:
    """Every weight moves, or all above the lowest layers."""

    freeze_layers: int = 0
    """How many of the lowest decoder blocks are frozen, the embeddings with them; 0 freezes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeMethod:
    """No weight moves: the base, an adapter, and all below it become one whole model."""


Method = LoraMethod | QloraMethod | FullMethod | MergeMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Where rows come from; exactly one field is set."""

    dataset: str | None = None
    """`projects/{project}/datasets/{dataset}/versions/{version}`; without the version: the newest one."""
    local_path: str | None = None
    """JSONL file below the inputs folder of an unmanaged trainer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The rows a run learns from and how they become tokens."""

    train: DataSource = field(default_factory=DataSource)
    """Rows to learn from."""
    validation: DataSource | None = None
    """Rows the validation loss is computed on."""
    max_tokens: int = 0
    """Longest row in tokens, 8 to 131072. 0: 1024, or the model's limit when smaller."""
    overlong: OverlongPolicy | None = None
    """What happens to a longer row. None: DROP; SPLIT for continued pre-training."""
    train_fraction: float = 0.0
    """Share of the rows for training that are learned from, (0, 1], chosen by row id and seed. 0: all rows."""
    fail_on_leak: bool = False
    """Whether the run is refused when a row for validation is learned from too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization:
    """How the weights move."""

    optimizer: Optimizer = Optimizer.ADAMW
    """The update rule."""
    learning_rate: float = 0.0
    """Peak learning rate, > 0. 0: by task and method, see `defaults.LEARNING_RATES`."""
    schedule: LearningRateSchedule = LearningRateSchedule.COSINE
    """How the rate falls after the warm-up."""
    warmup_ratio: float | None = None
    """Share of all steps of linear warm-up, [0, 1). None: 0.05."""
    weight_decay: float | None = None
    """Decoupled weight decay, >= 0. None: 0."""
    max_grad_norm: float | None = None
    """Gradients are scaled down to this norm, >= 0, 0 = no clipping. None: 1."""
    rows_per_step: int = 0
    """Rows behind one optimiser step, 1 to 65536. 0: 8."""
    rows_per_micro_batch: int = 0
    """Rows computed at once. 0: chosen by the trainer."""
    epochs: float | None = None
    """Passes over the rows, > 0. None with no `max_steps`: 3 for supervised fine-tuning, else 1."""
    max_steps: int | None = None
    """Optimiser steps, 1 to 1000000000; instead of `epochs`."""
    decay_ratio: float | None = None
    """With WSD: share of all steps over which the rate falls at the end, (0, 1]. None: 0.2."""
    decay_every_steps: int = 0
    """With STEP: steps between two falls, >= 1. 0: 500."""
    decay_factor: float | None = None
    """With STEP: what the rate is multiplied by at each fall, (0, 1). None: 0.9."""
    recompute: ActivationRecompute = ActivationRecompute.AUTO
    """What of the forward pass is not kept for the backward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointing:
    """When the state of a run is saved."""

    every_steps: int | None = None
    """Optimiser steps between two checkpoints, 0 = only when asked to stop. None: 50."""
    keep_last: int = 0
    """How many of the newest checkpoints stay, >= 1, on the node and in the blob store. 0: 2."""
    durable_every_steps: int | None = None
    """Optimiser steps between two checkpoints that are copied to the blob store, 0 = none. None: each."""
    keep_best: bool = False
    """Whether the checkpoint of the lowest validation loss stays too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is measured during a run."""

    every_steps: int = 0
    """Optimiser steps between two evaluations, 0 = off."""
    prompts: tuple[str, ...] = ()
    """Prompts that are completed at each evaluation, at most 16."""
    max_new_tokens: int = 0
    """Tokens generated for each prompt, 1 to 512. 0: 48."""
    patience: int = 0
    """Evaluations without a new lowest validation loss after which the run ends, 0 = never."""
    min_improvement: float = 0.0
    """By how much a loss must be below the lowest one to be the new best, in nats a token, >= 0."""
    use_best: bool = False
    """Whether the result has the weights of the evaluation with the lowest loss, not those of the last step."""
    keywords: tuple[tuple[str, ...], ...] = ()
    """For each prompt, words of which its completion must have one in the check of the result, whatever their case; an
    empty entry takes any answer. Empty: no prompt has any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run needs."""

    nodes: int = 0
    """Nodes that work together. 0: 1."""
    devices_per_node: int | None = None
    """Accelerators on each node, 0 = CPU only. None: 1 where a node has accelerators, else 0."""
    cpu_millis: int = 0
    """CPU share on each node in thousandths of a core, at least and at most. 0: the node's default, and no limit."""
    memory_bytes: int = 0
    """Host memory on each node in bytes, at least and at most. 0: no request, and no limit."""
    node_labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Labels that a node must carry, all of them."""
    lost_after_s: float | None = None
    """Seconds that a node may be unreachable before its attempt is replaced. None: 600."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """What ends a run that cannot come to anything."""

    loss_explosion_factor: float | None = None
    """How many times the lowest median of a run's losses a loss may be, > 1; 0 = off. None: 3."""
    zero_gradient_steps: int | None = None
    """First steps that may pass without any gradient; 0 = off. None: 3."""
    allow_no_effect: bool = False
    """Whether a run succeeds whose adapters change nothing."""
    stall_after_s: float | None = None
    """Seconds without a sign of progress after which an attempt is STALLED, 1 to 604800. None: 600."""
    stall_ends_after_s: float | None = None
    """Seconds without a sign of progress after which its process is ended, >= `stall_after_s`. None: 1800, or
    `stall_after_s` when that is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """How an adapter is merged into its base, and how far the two may be apart."""

    format: WeightFormat = WeightFormat.STORED
    """Number format of the merged model's weights."""
    min_agreement: float | None = None
    """Least share of positions at which both have the same likeliest token, [0, 1]. None: 0.995."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """What to train: one task, one method, on one base and one data set."""

    base: BaseModel = field(default_factory=BaseModel)
    """The model to start from."""
    method: Method | None = None
    """Which weights move."""
    data: DataConfig = field(default_factory=DataConfig)
    """The rows to learn from."""
    task: Task | None = field(default_factory=SupervisedTask)
    """What the model learns to do."""
    optimization: Optimization = field(default_factory=Optimization)
    """How the weights move."""
    compute: ComputeType = ComputeType.AUTO
    """Format of the matrix products (`precision.compute`)."""
    deterministic: bool = False
    """Only kernels that give the same bits each time (`precision.deterministic`)."""
    checkpointing: Checkpointing = field(default_factory=Checkpointing)
    """When the state is saved."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """What is measured during the run."""
    resources: Resources = field(default_factory=Resources)
    """What the run needs."""
    output_model: str | None = None
    """Model that gets the new version (`output.model`). None: the project's model named like the job."""
    merge: Merge | None = None
    """Makes the result a whole model (`output.merge`). None: the adapter is the result."""
    seed: int | None = None
    """Seed of every random choice. None: 0."""
    guards: Guards = field(default_factory=Guards)
    """What ends a run that cannot come to anything."""

    @property
    def lora(self) -> LoraMethod | None:
        """The adapters of the method, `None` for full fine-tuning."""
        if isinstance(self.method, QloraMethod):
            return self.method.lora
        return self.method if isinstance(self.method, LoraMethod) else None
