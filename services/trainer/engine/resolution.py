"""Every choice that a spec leaves open is made once, at the start of the first attempt, and frozen in the checkpoints.

A resume takes the frozen choices and refuses to go on where the numbers could come out differently: with other
versions, another kind of processor, fewer threads, or other bytes of model or rows.
"""

import hashlib
import json
import platform
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from google.protobuf import json_format

from services.trainer.engine.batches import common_beginning
from services.trainer.engine.corpus import Corpus
from services.trainer.engine.gang import Gang
from services.trainer.engine.optimizers import resolve_optimizer
from services.trainer.engine.precision import resolve_compute
from services.trainer.engine.recompute import resolve_recompute
from services.trainer.engine.training_task import TrainingFault
from services.trainer.software import PACKAGES, version
from tuneforge.errors import Reason
from tuneforge.specs.spec import ActivationRecompute, LoraMethod, TrainingSpec
from tuneforge.specs.wire import spec_from_proto, spec_to_proto
from tuneforge.specs.workload import steps_of
from tuneforge.v1 import spec_pb2

_OTHER_PACKAGES = ("tokenizers", "safetensors", "numpy")
"""Told, but free to differ at a resume: they compute nothing that the numbers depend on."""
LOWERED = "rows_at_once"
"""Says in the environment that a run computed fewer rows at once from some attempt on."""
_EXACT = (*PACKAGES, "device", "platform")
"""What of the environment must be the same at a resume."""

_TOKENS_LORA_CPU = 512
"""Tokens computed at once on a CPU. Measured with SmolLM2-135M: 256 to 512 are fastest, since the activations stay in
the cache; 1200 cost 15 % more."""
_TOKENS_OTHER_CPU = 1024
"""The same where each part has a price of its own: casting all weights (full), unpacking 4 bits (QLoRA)."""
_TOKENS_GPU = 8192
"""Tokens computed at once on a GPU: enough that kernels are no longer bound by their launches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What was decided once."""

    spec: TrainingSpec
    """With every default and every AUTO filled in."""
    environment: Mapping[str, str]
    """Versions and devices."""
    threads: int
    """CPU threads."""
    micro_batch_tokens: int
    """Tokens computed at once, with filling."""
    total_steps: int
    """Steps of the whole run."""
    inputs: Mapping[str, str]
    """Digests of all that is learned from: `base`, `train`, `validation`."""
    asked: str
    """The spec as it was asked for, without what does not change the numbers; compared at a resume."""
    processes: int = 1
    """Processes that train together."""

    @property
    def spec_digest(self) -> str:
        """SHA-256 of the resolved spec, as JSON without spaces and with sorted keys."""
        text = json.dumps(self.to_json()["spec"], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values that `from_json` reads."""
        return {
            "spec": json_format.MessageToDict(spec_to_proto(self.spec), preserving_proto_field_name=True),
            "environment": dict(self.environment),
            "threads": self.threads,
            "micro_batch_tokens": self.micro_batch_tokens,
            "total_steps": self.total_steps,
            "inputs": dict(self.inputs),
            "asked": self.asked,
            "processes": self.processes,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Resolution":
        """Reads what `to_json` gave.

        Raises:
            TrainingFault: RESUME_MISMATCH, when another release wrote it.
        """
        try:
            spec = spec_from_proto(json_format.ParseDict(content["spec"], spec_pb2.TrainingSpec()))
            return cls(**{**content, "spec": spec})
        except (json_format.ParseError, KeyError, TypeError) as error:
            raise of_another_release(error) from error


def of_another_release(error: Exception) -> TrainingFault:
    """Returns the fault of a checkpoint that verifies and says what this release does not know."""
    return TrainingFault(
        Reason.RESUME_MISMATCH,
        f"The checkpoint was made by another release of Tuneforge: {error}.",
        "Resume with the release that made it, or start a new job.",
    )


def asked(spec: TrainingSpec) -> str:
    """Returns the part of a spec that decides the numbers, as text that is equal for equal specs."""
    numeric = replace(
        spec,
        resources=type(spec.resources)(),
        checkpointing=type(spec.checkpointing)(),
        guards=type(spec.guards)(),
        output_model=None,
        merge=None,
    )
    numeric = with_recompute(numeric, ActivationRecompute.AUTO)
    message = spec_to_proto(numeric)
    return json_format.MessageToJson(message, sort_keys=True, indent=None)


def with_recompute(spec: TrainingSpec, policy: ActivationRecompute) -> TrainingSpec:
    """Returns a spec with another policy of what is computed again."""
    return replace(spec, optimization=replace(spec.optimization, recompute=policy))


def environment(device: torch.device, threads: int) -> dict[str, str]:
    """Returns versions and devices, as `Resolved.environment` names them."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in (*PACKAGES, *_OTHER_PACKAGES)},
        "device": name,
        "threads": str(threads),
        "os": f"{platform.system()} {platform.release()}",
        # The instruction set decides which kernels run, and with them the last bits of every sum.
        "platform": f"{platform.system()}-{platform.machine()}-{torch.backends.cpu.get_cpu_capability()}",
    }


def resolve(
    spec: TrainingSpec,
    corpus: Corpus,
    inputs: Mapping[str, str],
    *,
    base: Path,
    device: torch.device,
    threads: int,
    processes: int = 1,
) -> Resolution:
    """Makes every open choice; `lowered` may follow.

    Args:
        spec: With its defaults.
        corpus: Rows to learn from, at least one.
        inputs: Digests of base and rows.
        base: Folder of the base.
        device: Where the model will be.
        threads: CPU threads that were leased; of several processes the fewest.
        processes: How many train together.
    """
    optimization = spec.optimization
    steps = steps_of(
        len(corpus.examples),
        optimization.rows_per_step,
        epochs=optimization.epochs,
        max_steps=optimization.max_steps,
    )
    tokens = _tokens_at_once(spec, device)
    micro_rows = _rows_at_once(corpus, tokens, most=optimization.rows_per_step)
    # A run that begins anew under the spec that its first attempt resolved asks for the number that was chosen then: it
    # must cut its steps as that attempt did, else it would add up in another order. Any other wish counts alone.
    if (wish := optimization.rows_per_micro_batch) and wish != micro_rows:
        micro_rows = wish
        tokens = micro_rows * max(corpus.lengths)
    resolved = replace(
        spec,
        compute=resolve_compute(spec.compute, device),
        optimization=replace(
            optimization,
            optimizer=resolve_optimizer(optimization.optimizer, device),
            rows_per_micro_batch=micro_rows,
        ),
    )
    return Resolution(
        spec=with_recompute(resolved, resolve_recompute(resolved, base, device, tokens)),
        environment=environment(device, threads) | ({"processes": str(processes)} if processes > 1 else {}),
        threads=threads,
        micro_batch_tokens=tokens,
        total_steps=steps,
        inputs=inputs,
        asked=asked(spec),
        processes=processes,
    )


def lowered(found: Resolution, rows_at_once: int) -> Resolution:
    """Returns a resolution under which at most so many rows are computed at once, and tokens in the same proportion.

    A step's rows stay, and the loss is normalised over all that they teach: it is the same optimisation, but its sums
    add up in another order. `environment` says so, wherever it is shown.

    Args:
        found: What was decided, now or in a checkpoint.
        rows_at_once: The limit; 0: none.
    """
    before = found.spec.optimization.rows_per_micro_batch
    if not 0 < rows_at_once < before:
        return found
    told = f"{before} rows at once, then {rows_at_once}: memory ran out"
    earlier = found.environment.get(LOWERED)
    return replace(
        found,
        spec=with_rows_at_once(found.spec, rows_at_once),
        micro_batch_tokens=max(1, found.micro_batch_tokens * rows_at_once // before),
        environment={**found.environment, LOWERED: f"{earlier}; {told}" if earlier else told},
    )


def with_rows_at_once(spec: TrainingSpec, rows: int) -> TrainingSpec:
    """Returns a spec that asks for another number of rows at once; 0 leaves it open."""
    return replace(spec, optimization=replace(spec.optimization, rows_per_micro_batch=rows))


def _tokens_at_once(spec: TrainingSpec, device: torch.device) -> int:
    if device.type == "cuda":
        return _TOKENS_GPU
    return _TOKENS_LORA_CPU if isinstance(spec.method, LoraMethod) else _TOKENS_OTHER_CPU


def _rows_at_once(corpus: Corpus, tokens: int, *, most: int) -> int:
    """Returns how many rows of the middle length fit into some tokens, a common beginning counted once; >= 1."""
    common = common_beginning(corpus.examples)
    own = max(1.0, statistics.median(corpus.lengths) - common)
    return max(1, min(most, int((tokens - common) / own)))


def check_spec(frozen: Resolution, spec: TrainingSpec, *, is_lowered: bool = False) -> None:
    """Refuses a resume under a spec that asks for other numbers; the resolved spec asks for the same ones.

    Args:
        frozen: What the checkpoint has.
        spec: What is asked for now.
        is_lowered: Whether memory ran out since, so that `spec` may have another number of rows at once.

    Raises:
        TrainingFault: RESUME_MISMATCH.
    """
    if is_lowered and spec.optimization.rows_per_micro_batch:
        spec = with_rows_at_once(spec, frozen.spec.optimization.rows_per_micro_batch)
    if asked(spec) not in (frozen.asked, asked(frozen.spec)):
        raise TrainingFault(
            Reason.RESUME_MISMATCH,
            "The job's checkpoints were made under another spec.",
            "Start a new job for the new spec, or remove the checkpoints.",
        )


def check_environment(frozen: Resolution, *, device: torch.device, threads: int, processes: int = 1) -> None:
    """Refuses a resume where the numbers could come out differently.

    Raises:
        TrainingFault: RESUME_MISMATCH, naming what differs.
    """
    here = environment(device, threads)
    for name in _EXACT:
        if frozen.environment.get(name) != here[name]:
            raise _refused(name, frozen.environment.get(name, "unknown"), here[name])
    if threads < frozen.threads:
        raise _refused("threads", str(frozen.threads), str(threads))
    if processes != frozen.processes:
        raise _refused("processes", str(frozen.processes), str(processes))


def check_alike(gang: Gang, device: torch.device, inputs: Mapping[str, str]) -> None:
    """Refuses to train together with a process that could compute other numbers. Collective.

    Raises:
        TrainingFault: GANG_MIXED, naming what differs.
    """

    def known() -> dict[str, str]:
        here = environment(device, threads=0)
        return {**{name: here[name] for name in _EXACT}, **inputs}

    own, first = known(), gang.tell(known)
    for name, found in own.items():
        if found != first[name]:
            raise TrainingFault(
                Reason.GANG_MIXED,
                f"Process {gang.rank} of {gang.size} has {name} {found}, and the first one has {first[name]}.",
                "Give nodes that are alike a label, and ask for it in resources.node_labels.",
                metadata={"name": name, "expected": first[name], "found": found, "rank": str(gang.rank)},
            )


def check_inputs(frozen: Resolution, inputs: Mapping[str, str]) -> None:
    """Refuses a resume on other bytes of base or rows.

    Raises:
        TrainingFault: INTEGRITY, naming which.
    """
    for name, digest in inputs.items():
        if frozen.inputs.get(name) != digest:
            raise TrainingFault(
                Reason.INTEGRITY,
                f"The checkpoint was made with {name} {frozen.inputs.get(name)}, and {digest} is here.",
                "Resume with the same files, or start a new job.",
                metadata={"input": name, "expected": str(frozen.inputs.get(name)), "found": digest},
            )


def _refused(name: str, expected: str, found: str) -> TrainingFault:
    return TrainingFault(
        Reason.RESUME_MISMATCH,
        f"The checkpoint was made with {name} {expected}, and this node has {found}: the run would not stay exact.",
        "Resume on a node like the first one, or start a new job.",
        metadata={"name": name, "expected": expected, "found": found},
    )
