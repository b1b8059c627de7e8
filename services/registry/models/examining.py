"""Has a model's files examined in a process of their own, and turns what it found into one answer."""

import json
import tempfile
from collections.abc import Sequence
from typing import Any

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.child_process import Child, ask
from services.registry.folder import Folder
from services.registry.manifests import listed
from services.registry.models.examiner import EXIT_MEMORY
from services.registry.models.files import TOKENIZER
from services.registry.models.problems import Code, Problem, codes_of
from services.registry.models.shapes import Architecture, Tensor

_EXAMINER = Child(module="services.registry.models.examiner", environment={"TOKENIZERS_PARALLELISM": "false"})
_LONGEST_S = 580.0
"""Below the deadline of the calls that need it."""


def examine_model(folder: Folder) -> Architecture:
    """Checks the files of a whole model and returns what they say of its architecture. Blocks.

    Raises:
        ServiceError: `INVALID_MODEL` with all problems by file, and their codes in the metadata.
    """
    answer = _ask({"kind": "model", "paths": _paths(folder)}, TOKENIZER)
    known = answer["architecture"]
    if known is None:
        raise RuntimeError("the examiner found neither a problem nor an architecture")
    tensors = tuple(
        Tensor(name=each["name"], shape=tuple(each["shape"]), dtype=each["dtype"]) for each in known["tensors"]
    )
    return Architecture(
        class_name=known["class_name"], config_json=known["config_json"], tensors=tensors, seed=known["seed"]
    )


def examine_adapter(folder: Folder, base: Sequence[Tensor] | None) -> None:
    """Checks the files of a LoRA adapter, and that it fits its base. Blocks.

    Args:
        folder: The files.
        base: Weights of the whole model below it; None: not compared.

    Raises:
        ServiceError: `INVALID_MODEL` as `examine_model`; `BASE_MISMATCH` when all that is wrong is the base.
    """
    shapes = None if base is None else [[each.name, each.shape, each.dtype] for each in base]
    _ask({"kind": "adapter", "paths": _paths(folder), "base": shapes}, "adapter_model.safetensors")


def refused(problems: Sequence[Problem]) -> ServiceError:
    """Returns the error that tells problems."""
    codes = codes_of(problems)
    violations = listed([FieldViolation(problem.path, problem.sentence) for problem in problems])
    reason = Reason.BASE_MISMATCH if codes == {Code.BASE_MISMATCH} else Reason.INVALID_MODEL
    error = invalid_fields(violations, reason=reason)
    error.metadata["codes"] = ",".join(sorted(codes))
    return error


def _paths(folder: Folder) -> dict[str, str]:
    return {path: str(file) for path, file in folder.paths.items()}


def _ask(order: dict[str, Any], last: str) -> dict[str, Any]:
    """Returns the examiner's last answer; raises when it found something, or ended before its end.

    Args:
        order: What to examine.
        last: The file that an end before the end is about.
    """
    with tempfile.TemporaryDirectory(prefix="tuneforge-examiner-") as place:
        try:
            written, end = ask(_EXAMINER, json.dumps({**order, "place": place}).encode(), limit_s=_LONGEST_S)
        except TimeoutError:
            sentence = f"Took longer than {_LONGEST_S:.0f} s to read. Give it in fewer or smaller files."
            raise refused([Problem(last, sentence, Code.FORMAT_NOT_ALLOWED)]) from None
    answers = [json.loads(line) for line in written.splitlines()]
    problems = [
        Problem(path, sentence, Code(code)) for path, sentence, code in (answers[-1]["problems"] if answers else ())
    ]
    if end.code not in (0, EXIT_MEMORY) and end.code > 0:
        raise RuntimeError(f"the examiner of model files failed: {end.words}")
    if end.code != 0:
        sentence = "Took more time or memory to read than any real one. Give the file that the model was made with."
        code = Code.TOKENIZER_REFUSED if last == TOKENIZER and answers else Code.FORMAT_NOT_ALLOWED
        problems.append(Problem(last, sentence, code))
    if problems:
        raise refused(problems)
    return dict(answers[-1])
