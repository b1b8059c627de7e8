"""The weights of a whole model: shards that belong together, true headers, shapes as configured, finite numbers."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from services.registry.folder import Folder
from services.registry.models.configuration import Configuration, parse_json
from services.registry.models.expected_tensors import expected, is_buffer, plain
from services.registry.models.finite import first_non_finite
from services.registry.models.problems import Code, Problems
from services.registry.models.safetensors_header import HeaderTooLarge, MalformedFile, Placed, read_placed
from services.registry.models.shapes import Tensor

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
LARGEST_INDEX_BYTES = 16 * 1024 * 1024
MOST_TENSORS = 20_000
"""Of one model: ten times what the largest supported ones have, and their shapes still fit into one answer."""
WEIGHT_DTYPES = ("F32", "F16", "BF16")
_MOST_TOLD = 5
"""Tensors that are told of one kind of fault; a wrong configuration makes all of them wrong."""


def read_weights(folder: Folder, problems: Problems, beside: Collection[str] = ()) -> list[Tensor]:
    """Returns all weights by name; their numbers are looked at too.

    Args:
        folder: The files.
        problems: Takes what is wrong.
        beside: Files that may be there without being weights of the model.
    """
    shards = _shards(folder, problems)
    allowed = {*shards, *beside}
    for path in sorted(path for path in folder.paths if path.endswith(".safetensors") and path not in allowed):
        problems.add(
            path, f"Is neither {WEIGHTS} nor a shard that {WEIGHTS_INDEX} names. Leave it out.", Code.MISSING_SHARD
        )
    tensors: dict[str, Tensor] = {}
    for path, indexed in sorted(shards.items()):
        found = placed_tensors(folder.paths[path], path, problems)
        names = [placed.tensor.name for placed in found]
        repeated = sorted(name for name in names if name in tensors)
        if repeated:
            problems.add(
                path,
                f"Has the tensor {repeated[0]!r}, which another shard has too. Save the model anew.",
                Code.MISSING_SHARD,
            )
        absent = sorted(indexed - set(names))
        if absent and found:
            sentence = f"Lacks the tensor {absent[0]!r} that {WEIGHTS_INDEX} names in it. Save the model anew."
            problems.add(path, sentence, Code.MISSING_SHARD)
        tensors.update((placed.tensor.name, placed.tensor) for placed in found)
        scan(folder.paths[path], path, found, problems)
    if len(tensors) > MOST_TENSORS:
        sentence = f"Has {len(tensors)} tensors over all files; at most {MOST_TENSORS} are taken."
        problems.add(WEIGHTS, sentence, Code.HEADER_TOO_LARGE)
    return [tensors[name] for name in sorted(tensors)]


def placed_tensors(file: Path, path: str, problems: Problems) -> list[Placed]:
    """Returns the tensors of a file; a fault of it becomes a problem."""
    try:
        tensors = read_placed(file)
    except HeaderTooLarge as error:
        problems.add(path, f"It {error}.", Code.HEADER_TOO_LARGE)
        return []
    except MalformedFile as error:
        problems.add(path, f"It {error}.", Code.CORRUPT_SAFETENSORS)
        return []
    if not tensors:
        problems.add(path, "Has no tensors. Save the weights anew.", Code.CORRUPT_SAFETENSORS)
    return tensors


def scan(file: Path, path: str, tensors: Iterable[Placed], problems: Problems) -> None:
    """Refuses weights that are infinite or not numbers: such a model loads, and says nothing but noise."""
    bad = []
    for placed in tensors:
        index = first_non_finite(file, placed.begin, placed.end, placed.tensor.dtype)
        if index is not None:
            bad.append((placed.tensor.name, index))
    for name, index in bad[:_MOST_TOLD]:
        problems.add(
            path,
            f"Has the tensor {name!r} whose number {index} is infinite or not a number. Train or save the model anew.",
            Code.NON_FINITE_WEIGHTS,
        )
    if len(bad) > _MOST_TOLD:
        problems.add(path, f"Has {len(bad)} tensors with such numbers in all.", Code.NON_FINITE_WEIGHTS)


def check_shapes(configuration: Configuration, tensors: Sequence[Tensor], problems: Problems) -> None:
    """Holds weights against the configuration that they come with."""
    wanted = expected(configuration.class_name, configuration.values)
    known = {plain(name): shape for name, shape in {**wanted.required, **wanted.optional}.items()}
    found = {plain(tensor.name): tensor for tensor in tensors if not is_buffer(tensor.name)}
    sentences = [
        f"Has {tensor.name!r} with the shape {list(tensor.shape)}, but {list(known[name])} by config.json."
        for name, tensor in found.items()
        if name in known and tensor.shape != known[name]
    ]
    sentences += [
        f"Lacks the tensor {name!r} that config.json describes." for name in wanted.required if plain(name) not in found
    ]
    sentences += [
        f"Has the tensor {tensor.name!r}, which a {configuration.class_name} by config.json does not have."
        for name, tensor in found.items()
        if name not in known
    ]
    sentences += [
        f"Has {tensor.name!r} in the format {tensor.dtype}; weights are {', '.join(WEIGHT_DTYPES)}."
        for name, tensor in found.items()
        if name in known and tensor.dtype not in WEIGHT_DTYPES
    ]
    cure = "Save configuration and weights together with `save_pretrained`."
    for sentence in sentences[:_MOST_TOLD]:
        problems.add(WEIGHTS, f"{sentence} {cure}", Code.SHAPE_MISMATCH)
    if len(sentences) > _MOST_TOLD:
        problems.add(WEIGHTS, f"Differs from config.json in {len(sentences)} tensors in all.", Code.SHAPE_MISMATCH)


def _shards(folder: Folder, problems: Problems) -> dict[str, set[str]]:
    """Returns weight file -> names of the tensors that the index puts into it."""
    if WEIGHTS in folder:
        return {WEIGHTS: set()}
    if WEIGHTS_INDEX not in folder:
        sentence = f"Is missing, and so is {WEIGHTS_INDEX}. Save the weights with safetensors."
        problems.add(WEIGHTS, sentence, Code.FILE_MISSING)
        return {}
    weight_map = _weight_map(folder, problems)
    shards: dict[str, set[str]] = {}
    for tensor, path in weight_map.items():
        shards.setdefault(path, set()).add(tensor)
    for path in sorted(set(shards) - set(folder.paths)):
        sentence = f"Is named in {WEIGHTS_INDEX}, but not part of the manifest. Add it."
        problems.add(path[:300], sentence, Code.MISSING_SHARD)
        del shards[path]
    for path in sorted(path for path in shards if not path.endswith(".safetensors")):
        problems.add(path[:300], f"Is named in {WEIGHTS_INDEX}, but is no safetensors file.", Code.MISSING_SHARD)
        del shards[path]
    return shards


def _weight_map(folder: Folder, problems: Problems) -> dict[str, str]:
    file = folder.paths[WEIGHTS_INDEX]
    try:
        if file.stat().st_size > LARGEST_INDEX_BYTES:
            raise ValueError(f"it has more than {LARGEST_INDEX_BYTES} bytes")
        content = parse_json(file.read_bytes())
    except ValueError as error:
        problems.add(
            WEIGHTS_INDEX, f"Is not JSON in UTF-8: {str(error)[:200]}. Save the model anew.", Code.MISSING_SHARD
        )
        return {}
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(path, str) for path in weight_map.values()):
        sentence = "Has no `weight_map` from tensor to file. Save the model anew."
        problems.add(WEIGHTS_INDEX, sentence, Code.MISSING_SHARD)
        return {}
    return dict(weight_map)
