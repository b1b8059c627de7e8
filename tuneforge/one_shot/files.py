"""What a run leaves in its output folder, beside the files of the version."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuneforge.models import ModelVersion
from tuneforge.specs.profile import size_in_id
from tuneforge.specs.profile_documents import document, tuned_id

STATE_FOLDER: Final = ".tuneforge"
"""Inside the output folder: the services' data, and which job the run is."""
TRAINING_INFO: Final = "training_info.json"
PROFILE: Final = "aim_profile.json"
_STATE: Final = "run.json"


@dataclass(frozen=True, slots=True)
class RunState:
    """Which job an output folder belongs to."""

    job_id: str
    spec: Mapping[str, Any]
    """What it was asked to do: another spec is another job."""


def read_state(output: Path) -> RunState | None:
    """Returns the job that the output folder was used for last; None for none."""
    try:
        content = json.loads((output / STATE_FOLDER / _STATE).read_text(encoding="utf-8"))
        return RunState(content["job_id"], content["spec"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # damaged by hand: as good as none
        return None


def write_state(output: Path, state: RunState) -> None:
    """Notes which job the output folder is used for, before it is asked for."""
    path = output / STATE_FOLDER / _STATE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"job_id": state.job_id, "spec": state.spec}), encoding="utf-8")
    temporary.replace(path)


def write_documents(output: Path, model_id: str, version: ModelVersion) -> None:
    """Fills in what the documents of a version leave out, since it differs between two equal runs.

    That is how long it took, where it lies, and the base by the name that it was asked for.

    Args:
        output: With the version's files.
        model_id: The base as the user calls it.
        version: The result.
    """
    info = json.loads((output / TRAINING_INFO).read_text(encoding="utf-8"))
    info |= {"model_id": model_id, "output_dir": str(output)}
    results = info["results"]
    results["model_path"] = str(output)
    names = {"train_seconds": "train_runtime", "train_samples_per_second": "train_samples_per_second"}
    results |= {word: version.metrics[name] for name, word in names.items() if name in version.metrics}
    (output / TRAINING_INFO).write_text(document(info), encoding="utf-8")
    profile = json.loads((output / PROFILE).read_text(encoding="utf-8"))
    profile |= {"model_id": tuned_id(model_id), "base_model_id": model_id, "training_info": info}
    if (named := size_in_id(model_id)) is not None:
        profile["parameters"] = named[0]
    (output / PROFILE).write_text(document(profile), encoding="utf-8")


def link_checkpoints(output: Path, job: str) -> int:
    """Puts the checkpoints that embedded services kept into the output folder, as `checkpoint-STEP`.

    Args:
        output: The output folder.
        job: `projects/{project}/jobs/{job}`.

    Returns:
        How many there are.
    """
    _, project, _, job_id = job.split("/")
    kept = output / STATE_FOLDER / "trainer" / "jobs" / project / job_id / "checkpoints"
    found = sorted(kept.glob("step-*"))
    for old in output.glob("checkpoint-*"):
        shutil.rmtree(old, ignore_errors=True)
    for folder in found:
        # The same bytes under a second name: checkpoints are never changed.
        shutil.copytree(folder, output / f"checkpoint-{int(folder.name[5:])}", copy_function=_link)
    return len(found)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
