"""The checks that a run makes of its own result before it says that it succeeded: cheap, and kept with the version.

A check that fails does not fail the run: whoever promotes decides what is good enough.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from services.trainer.engine import checkpoints
from tuneforge.checks import Check, check_model_output, check_profile, check_training_loss
from tuneforge.manifest import IntegrityError

CHECKPOINTS = "checkpoint_integrity"


def check_result(
    metrics: Mapping[str, float],
    completions: Sequence[str],
    keywords: Sequence[Sequence[str]],
    checkpoint_folder: Path,
    profile: str,
) -> tuple[tuple[Check, ...], Mapping[str, str]]:
    """Makes all checks that can be made.

    Args:
        metrics: Final figures.
        completions: What the model said to its prompts after the last step; empty where it was asked nothing.
        keywords: For each prompt, words of which the answer must have one; empty: any answer counts.
        checkpoint_folder: The job's checkpoints.
        profile: The profile that was written.

    Returns:
        The checks, and the names of those that could not be made with the reason.
    """
    checks = [check_profile(profile)]
    not_run: dict[str, str] = {}
    if "loss" in metrics:
        checks.append(check_training_loss(metrics["loss"]))
    else:
        not_run["training_loss"] = "no step was made"
    if completions:
        checks.append(check_model_output(completions, keywords))
    else:
        not_run["model_output"] = "the model was asked nothing"
    found = check_checkpoint(checkpoint_folder)
    if found is None:
        not_run[CHECKPOINTS] = "the run saved no checkpoint"
    else:
        checks.append(found)
    return tuple(sorted(checks, key=lambda check: check.name)), not_run


def check_checkpoint(folder: Path) -> Check | None:
    """Reads every byte of the newest checkpoint of a folder; None when there is none."""
    newest = next(checkpoints.saved(folder), None)
    if newest is None:
        return None
    if isinstance(newest, IntegrityError):
        message = f"The newest checkpoint is damaged: {newest}."
        return Check(name=CHECKPOINTS, passed=False, message=message[:1000], details={"path": newest.path})
    try:
        checkpoints.load(newest)
    except (ValueError, KeyError, OSError) as error:
        message = f"The newest checkpoint, after step {newest.step}, cannot be read: {error}."
        return Check(name=CHECKPOINTS, passed=False, message=message[:1000])
    return Check(
        name=CHECKPOINTS,
        passed=True,
        message=f"Every byte of the checkpoint after step {newest.step} is what its manifest says.",
        details={"step": str(newest.step), "digest": newest.manifest.digest},
    )
