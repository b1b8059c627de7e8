"""What is learned and which weights move: message <-> dataclass."""

from __future__ import annotations

from tuneforge.specs.spec import (
    ContinuedPretrainingTask,
    FullMethod,
    LoraMethod,
    MergeMethod,
    Method,
    PreferenceLoss,
    PreferenceTask,
    QloraMethod,
    Quantization,
    RewardModelTask,
    SupervisedTask,
    Task,
)
from tuneforge.v1 import spec_pb2

PREFERENCE_LOSSES = {
    spec_pb2.PREFERENCE_LOSS_UNSPECIFIED: PreferenceLoss.SIGMOID,
    spec_pb2.PREFERENCE_LOSS_SIGMOID: PreferenceLoss.SIGMOID,
    spec_pb2.PREFERENCE_LOSS_IPO: PreferenceLoss.IPO,
}
"""Number of the contract -> loss."""
QUANTIZATIONS = {
    spec_pb2.QUANTIZATION_UNSPECIFIED: Quantization.NF4,
    spec_pb2.QUANTIZATION_NF4: Quantization.NF4,
    spec_pb2.QUANTIZATION_NF4_SINGLE: Quantization.NF4_SINGLE,
    spec_pb2.QUANTIZATION_INT8: Quantization.INT8,
}
"""Number of the contract -> how weights are kept."""
_QUANTIZATION_NUMBER = {value: number for number, value in QUANTIZATIONS.items()}
_LOSS_NUMBER = {value: number for number, value in PREFERENCE_LOSSES.items()}


def task_from_proto(message: spec_pb2.TrainingSpec) -> Task | None:
    """Returns what is learned; None where nothing is set."""
    match message.WhichOneof("task"):
        case "supervised":
            return SupervisedTask()
        case "continued_pretraining":
            return ContinuedPretrainingTask()
        case "preference":
            return PreferenceTask(
                beta=message.preference.beta,
                label_smoothing=message.preference.label_smoothing,
                loss=PREFERENCE_LOSSES.get(message.preference.loss, PreferenceLoss.SIGMOID),
            )
        case "reward_model":
            return RewardModelTask()
        case _:
            return None


def put_task(message: spec_pb2.TrainingSpec, task: Task | None) -> None:
    """Writes what is learned."""
    match task:
        case SupervisedTask():
            message.supervised.SetInParent()
        case ContinuedPretrainingTask():
            message.continued_pretraining.SetInParent()
        case PreferenceTask():
            message.preference.beta = task.beta
            message.preference.label_smoothing = task.label_smoothing
            message.preference.loss = _LOSS_NUMBER[task.loss]
        case RewardModelTask():
            message.reward_model.SetInParent()


def method_from_proto(message: spec_pb2.TrainingSpec) -> Method | None:
    """Returns which weights move; None where nothing is set."""
    match message.WhichOneof("method"):
        case "lora":
            return _lora_from_proto(message.lora)
        case "qlora":
            return QloraMethod(
                lora=_lora_from_proto(message.qlora.lora),
                quantization=QUANTIZATIONS.get(message.qlora.quantization, Quantization.NF4),
            )
        case "full":
            return FullMethod(freeze_layers=message.full.freeze_layers)
        case "merge":
            return MergeMethod()
        case _:
            return None


def put_method(message: spec_pb2.TrainingSpec, method: Method | None) -> None:
    """Writes which weights move."""
    if isinstance(method, FullMethod):
        message.full.freeze_layers = method.freeze_layers
        message.full.SetInParent()
    elif isinstance(method, MergeMethod):
        message.merge.SetInParent()
    elif isinstance(method, QloraMethod):
        message.qlora.lora.CopyFrom(_lora_to_proto(method.lora))
        message.qlora.quantization = _QUANTIZATION_NUMBER[method.quantization]
    elif method is not None:
        message.lora.CopyFrom(_lora_to_proto(method))


def _lora_from_proto(message: spec_pb2.LoraMethod) -> LoraMethod:
    return LoraMethod(
        rank=message.rank,
        alpha=message.alpha,
        dropout=message.dropout if message.HasField("dropout") else None,
        target_modules=tuple(message.target_modules),
        use_rslora=message.use_rslora,
        use_dora=message.use_dora,
    )


def _lora_to_proto(lora: LoraMethod) -> spec_pb2.LoraMethod:
    return spec_pb2.LoraMethod(
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
    )
