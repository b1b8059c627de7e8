"""A LoRA adapter held against the base that it is for: targets, rank, and the shape of every factor."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.registry.models.expected_tensors import plain
from services.registry.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from services.registry.models.problems import Code, Problems
from services.registry.models.shapes import Tensor

_ROOT = "base_model.model."
_FACTORS = (".lora_A.weight", ".lora_B.weight")
_MAGNITUDE = ".lora_magnitude_vector"
"""Of DoRA: one number for each output of a layer."""
_SCORE = f"{_ROOT}score.weight"
"""Of a reward model: its head, which its base does not have."""
_MOST_TOLD = 5
LARGEST_RANK = 4096


def check_adapter(config: Mapping[str, Any], own: Sequence[Tensor], base: Sequence[Tensor], problems: Problems) -> None:
    """Refuses an adapter that does not fit its base.

    Args:
        config: `adapter_config.json`.
        own: The adapter's weights.
        base: Those of the whole model below it.
        problems: Takes what is wrong.
    """
    rank, targets = _declared(config, problems)
    if rank is None or targets is None:
        return
    layers = {plain(tensor.name).removesuffix(".weight"): tensor.shape for tensor in base if len(tensor.shape) == 2}
    factors: dict[str, dict[str, Tensor]] = {}
    sentences: list[str] = []
    for tensor in own:
        name = tensor.name.removesuffix(".weight")
        if name.startswith(_ROOT) and name.endswith(_MAGNITUDE):
            sentences += _magnitude_problems(plain(name.removeprefix(_ROOT).removesuffix(_MAGNITUDE)), tensor, layers)
            continue
        if tensor.name == _SCORE and config.get("task_type") == "SEQ_CLS":
            sentences += _score_problems(tensor, layers)
            continue
        layer, factor = _place(tensor.name)
        if layer is None:
            sentences.append(f"Has the tensor {tensor.name!r}, which is no factor of LoRA.")
        else:
            factors.setdefault(layer, {})[factor] = tensor
    reached = {layer.rpartition(".")[2] for layer in factors}
    sentences += [f"Has no factors for the target {target!r}." for target in sorted(set(targets) - reached)]
    for layer, pair in sorted(factors.items()):
        sentences += _layer_problems(layer, pair, layers.get(layer), _rank_of(config, layer, rank))
    if sum(tensor.size for tensor in own) > sum(tensor.size for tensor in base):
        sentences.append("Has more weights than its base.")
    cure = "Give the base that it was trained on, whole and unchanged."
    for sentence in sentences[:_MOST_TOLD]:
        problems.add(ADAPTER_WEIGHTS, f"{sentence} {cure}", Code.BASE_MISMATCH)
    if len(sentences) > _MOST_TOLD:
        problems.add(ADAPTER_WEIGHTS, f"Differs from its base in {len(sentences)} places in all.", Code.BASE_MISMATCH)


def _declared(config: Mapping[str, Any], problems: Problems) -> tuple[int | None, list[str] | None]:
    rank, targets = config.get("r"), config.get("target_modules")
    if type(rank) is not int or not 1 <= rank <= LARGEST_RANK:
        sentence = f"Has r = {str(rank)[:40]}; give a whole number from 1 to {LARGEST_RANK}."
        problems.add(ADAPTER_CONFIG, sentence, Code.ADAPTER_REFUSED)
        rank = None
    if not isinstance(targets, list) or not targets or not all(isinstance(each, str) for each in targets):
        sentence = "Has no list of `target_modules`. Name the layers, without a pattern."
        problems.add(ADAPTER_CONFIG, sentence, Code.ADAPTER_REFUSED)
        return rank, None
    return rank, [target.rpartition(".")[2] for target in targets]


def _place(name: str) -> tuple[str | None, str]:
    """Returns the layer of the base that a factor is for, and which of the two it is."""
    for factor in _FACTORS:
        if name.startswith(_ROOT) and name.endswith(factor):
            return plain(name.removeprefix(_ROOT).removesuffix(factor)), factor
    return None, ""


def _rank_of(config: Mapping[str, Any], layer: str, rank: int) -> int:
    patterns = config.get("rank_pattern")
    if isinstance(patterns, dict):
        for pattern, value in patterns.items():
            if type(value) is int and (layer == pattern or layer.endswith(f".{pattern}")):
                return value
    return rank


def _magnitude_problems(layer: str, tensor: Tensor, layers: Mapping[str, tuple[int, ...]]) -> list[str]:
    if layer not in layers:
        return [f"Is for the layer {layer!r}, which its base does not have."]
    if tensor.size not in layers[layer]:
        return [f"Has {tensor.size} magnitudes for {layer!r}, but its base has {list(layers[layer])}."]
    return []


def _score_problems(tensor: Tensor, layers: Mapping[str, tuple[int, ...]]) -> list[str]:
    widths = {shape[-1] for name, shape in layers.items() if name.rpartition(".")[2] in {"embed_tokens", "wte"}}
    if len(tensor.shape) != 2 or tensor.shape[1] not in widths:
        return [f"Has a head of {list(tensor.shape)}, which does not fit the width of its base."]
    return []


def _layer_problems(layer: str, pair: Mapping[str, Tensor], shape: tuple[int, ...] | None, rank: int) -> list[str]:
    if shape is None:
        return [f"Is for the layer {layer!r}, which its base does not have."]
    if set(pair) != set(_FACTORS):
        return [f"Has one of the two factors of {layer!r} only."]
    first, second = (pair[factor].shape for factor in _FACTORS)
    if len(first) != 2 or len(second) != 2:
        return [f"Has factors of {layer!r} that are no matrices."]
    # Linear weights lie with the output side first, but for GPT-2's; the factors never turn with them.
    sides = {(second[0], first[1]), (first[1], second[0])}
    if first[0] != rank or second[1] != rank:
        return [f"Has factors of {layer!r} of rank {first[0]} and {second[1]}, but r is {rank}."]
    if shape not in sides:
        return [f"Has factors of {layer!r} for a layer of {second[0]} x {first[1]}, but its base has {list(shape)}."]
    return []
