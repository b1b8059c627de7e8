"""The profile of a version, reckoned from what the registry knows of it."""

from collections.abc import Mapping
from typing import Any

from services.grpckit.errors import FieldViolation, invalid_fields
from tuneforge.names import ModelVersionName
from tuneforge.specs import profile as rules
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.memory import estimate
from tuneforge.specs.profile import Profile, ProfileFacts
from tuneforge.specs.profile_documents import (
    document,
    lora_document,
    merge_document,
    method_word,
    model_id_of,
    quantization_document,
    training_info,
    tuned_id,
)
from tuneforge.specs.spec import MergeMethod, TrainingSpec
from tuneforge.specs.wire import architecture_from_proto, spec_from_proto
from tuneforge.v1 import events_pb2, models_pb2, profiles_pb2


def profile_of(version: models_pb2.ModelVersion, precision: str) -> profiles_pb2.ModelProfile:
    """Returns the profile of a version.

    Args:
        version: Whole, with its tensors.
        precision: As sent; empty: that of the weights.

    Raises:
        ServiceError: `INVALID_FIELD`: the precision is not known.
    """
    if precision and precision not in rules.BYTES_PER_PARAMETER:
        known = ", ".join(rules.BYTES_PER_PARAMETER)
        raise invalid_fields([FieldViolation("precision", f"is {precision[:40]!r}; give one of {known}")])
    architecture = architecture_from_proto(version.architecture)
    spec = spec_from_proto(version.lineage.spec) if version.lineage.HasField("spec") else None
    chosen = precision or rules.precision_of(architecture)
    found = _profile(version, architecture, spec, chosen)
    is_adapter = version.kind == events_pb2.ARTIFACT_KIND_ADAPTER
    serving = rules.serving_memory(architecture, chosen, spec.lora if spec and is_adapter else None)
    message = profiles_pb2.ModelProfile(
        name=version.name,
        model_id=found.model_id,
        base_model_id=found.base_model_id,
        fine_tuning_method=found.fine_tuning_method,
        precision=found.precision,
        memory_gb=found.memory_gb,
        recommended_partition_gb=found.recommended_partition_gb,
        parameters=found.parameters,
        parameter_count=found.parameter_count,
        formula=found.formula,
        profile_json=found.to_json(),
    )
    message.serving.weights_bytes = serving.weights_bytes
    message.serving.adapter_bytes = serving.adapter_bytes
    message.serving.cache_bytes = serving.cache_bytes
    message.serving.overhead_bytes = serving.overhead_bytes
    message.serving.total_bytes = serving.total_bytes
    if spec is not None:
        message.training_bytes = estimate(spec, architecture).total_bytes
        message.training_info_json = document(training_info(spec, found.base_model_id, _metrics(version)))
    return message


def _profile(
    version: models_pb2.ModelVersion, architecture: Architecture, spec: TrainingSpec | None, precision: str
) -> Profile:
    own_id = ModelVersionName.parse(version.name).model
    base_id = model_id_of(version.lineage.base.version, own_id)
    return rules.profile(
        ProfileFacts(
            model_id=tuned_id(base_id) if version.lineage.base.version else own_id,
            base_model_id=base_id,
            method=method_word(spec) if spec else "",
            precision=precision,
            parameter_count=max(1, architecture.parameters),
            lora_config=lora_document(spec) if spec else None,
            quantization_info=quantization_document(spec) if spec else None,
            training_info=training_info(spec, base_id, _metrics(version)) if spec else None,
            merge_info=merge_info(version),
        )
    )


def merge_info(version: models_pb2.ModelVersion) -> dict[str, Any] | None:
    """Returns what is known of the adapter that a whole model was made with; None for any other version."""
    if version.kind != events_pb2.ARTIFACT_KIND_MODEL or not version.lineage.spec.output.HasField("merge"):
        return None
    spec = spec_from_proto(version.lineage.spec)
    method = "" if isinstance(spec.method, MergeMethod) else method_word(spec)
    return merge_document(
        method=method,
        base_quantization="nf4" if method == "qlora" else "",
        weight_format=spec.merge.format.value if spec.merge else "",
        figures=_metrics(version),
    )


def _metrics(version: models_pb2.ModelVersion) -> Mapping[str, float]:
    return dict(version.metrics)
