"""Short names to whole resource names: people type `my-job`, the wire carries `projects/default/jobs/my-job`.

Whole names pass through. Short forms: `id` for what a project owns; `id/3` for version 3; `id@production` for a model's
alias; a model's or a data set's `id` where a version is meant is the newest one.
"""

from tuneforge.errors import InvalidArgument, Reason
from tuneforge.names import (
    AliasName,
    CheckpointName,
    DatasetName,
    DatasetVersionName,
    DeploymentName,
    InvalidName,
    JobName,
    ModelName,
    NodeName,
    PolicyName,
    ProjectName,
    ResourceName,
    SweepName,
    TrialName,
    parse_model_reference,
)


def parent(project: str) -> str:
    """Returns the name of a project."""
    return _checked(ProjectName, f"projects/{project}")


def job(project: str, value: str) -> str:
    """Returns the name of a job."""
    return _checked(JobName, _whole(project, "jobs", value))


def node(value: str) -> str:
    """Returns the name of a node."""
    return _checked(NodeName, value if value.startswith("nodes/") else f"nodes/{value}")


def checkpoint(project: str, value: str) -> str:
    """Returns the name of a checkpoint: of `job/20`, the one of step 20, or a whole name."""
    if not value.startswith("projects/"):
        value = f"projects/{project}/jobs/{value.replace('/', '/checkpoints/', 1)}"
    return _checked(CheckpointName, value)


def sweep(project: str, value: str) -> str:
    """Returns the name of a sweep."""
    return _checked(SweepName, _whole(project, "sweeps", value))


def trial(project: str, value: str) -> str:
    """Returns the name of a trial: of `sweep/3`, the third one, or a whole name."""
    if not value.startswith("projects/"):
        value = f"projects/{project}/sweeps/{value.replace('/', '/trials/', 1)}"
    return _checked(TrialName, value)


def dataset(project: str, value: str) -> str:
    """Returns the name of a data set."""
    return _checked(DatasetName, _whole(project, "datasets", value))


def model(project: str, value: str) -> str:
    """Returns the name of a model."""
    return _checked(ModelName, _whole(project, "models", value))


def deployment(project: str, value: str) -> str:
    """Returns the name of a deployment."""
    return _checked(DeploymentName, _whole(project, "deployments", value))


def dataset_version(project: str, value: str) -> str:
    """Returns the name of a data set version: of `id/3`, `id` (the newest one) or a whole name."""
    return _checked(DatasetVersionName, _version(project, "datasets", value))


def model_version(project: str, value: str) -> str:
    """Returns the name of a model version or an alias: of `id/3`, `id@alias`, `id` (newest) or a whole name."""
    base, at, name = value.partition("@")
    whole = f"{model(project, base)}/aliases/{name}" if at else _version(project, "models", value)
    try:
        return str(parse_model_reference(whole))
    except InvalidName as error:
        raise _invalid(error) from None


def alias(project: str, model_value: str, value: str) -> str:
    """Returns the name of a model's alias."""
    return _checked(AliasName, f"{model(project, model_value)}/aliases/{value}")


def policy(project: str, model_value: str, value: str) -> str:
    """Returns the name of a model's gate policy."""
    return _checked(PolicyName, f"{model(project, model_value)}/policies/{value}")


def _whole(project: str, collection: str, value: str) -> str:
    return value if "/" in value else f"projects/{project}/{collection}/{value}"


def _version(project: str, collection: str, value: str) -> str:
    if not value.startswith("projects/"):
        value = f"projects/{project}/{collection}/{value.replace('/', '/versions/', 1)}"
    return value if value.count("/") > 3 else f"{value}/versions/latest"


def _checked(kind: type[ResourceName], value: str) -> str:
    try:
        return str(kind.parse(value, allow_latest=True))
    except InvalidName as error:
        raise _invalid(error) from None


def _invalid(error: InvalidName) -> InvalidArgument:
    return InvalidArgument(
        Reason.INVALID_NAME,
        str(error),
        cure="Give an id, or a whole name of this form.",
        metadata={"name": error.value},
    )
