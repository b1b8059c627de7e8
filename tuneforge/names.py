"""Resource names: one frozen dataclass for each kind, with `parse` and `str()`.

A name is whole on the wire (`projects/{project}/jobs/{job}`); only SDK and CLI fill in a default project. `parse` says
what it expected, and the services answer its `InvalidName` with the reason INVALID_NAME without further code.
"""

import re
import secrets
from dataclasses import dataclass
from typing import ClassVar, Self

ID_FORM = "1 to 63 of a-z 0-9 -, beginning with a letter, not ending with -"
"""The form of an id, in words."""

LATEST = 0
"""The version number that stands for `latest` in a name that was parsed with `allow_latest`."""

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RECIPE = re.compile(r"[a-zA-Z0-9._@]{4,128}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


class InvalidName(ValueError):
    """A text is not a resource name of the kind that was asked for.

    Attributes:
        value: The text.
        expected: The form that was expected, such as `projects/{project}/jobs/{job}`.
    """

    def __init__(self, value: str, expected: str, problem: str = "") -> None:
        shown = value if len(value) <= 200 else value[:200] + "..."
        super().__init__(f"{shown!r} is not a name of the form {expected}" + (f": {problem}" if problem else ""))
        self.value = value
        self.expected = expected


def is_id(text: str) -> bool:
    """Returns whether a text may be the id of a project, model, data set, job, alias, deployment or node."""
    return _ID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Returns whether a text is a SHA-256: 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def new_id(prefix: str) -> str:
    """Returns a fresh id such as `job-3f9a1c07b2de`; 48 random bits, so that a store checks it for uniqueness."""
    return f"{prefix}-{secrets.token_hex(6)}"


def project_of(name: str) -> str:
    """Returns the project that any resource name begins with.

    Raises:
        InvalidName: The name does not begin with `projects/{project}`.
    """
    collection, _, rest = name.partition("/")
    project = rest.partition("/")[0]
    if collection != "projects" or not is_id(project):
        raise InvalidName(name, "projects/{project}/...", f"an id is {ID_FORM}")
    return project


def _check(value: str, kind: str) -> str:
    """Returns what is wrong with one variable part of a name; empty when nothing is."""
    if kind == "digest":
        return "" if is_digest(value) else "a digest is 64 lower-case hexadecimal digits"
    if kind in {"version", "attempt", "validation", "trial"}:
        return "" if _NUMBER.fullmatch(value) and value != "0" else f"{kind} is a whole number from 1 on"
    if kind == "upload":
        is_upload = is_digest(value) or is_id(value)
        return "" if is_upload else f"an upload is a digest of 64 lower-case hexadecimal digits, or {ID_FORM}"
    if kind == "recipe":
        return "" if _RECIPE.fullmatch(value) else "recipe is 4 to 128 letters, digits and . _ @"
    if kind == "step":
        return "" if _NUMBER.fullmatch(value) else "step is a whole number from 0 on"
    return "" if is_id(value) else f"{kind} is {ID_FORM}"


@dataclass(frozen=True, slots=True)
class ResourceName:
    """What all names share: the pattern, in which `{field}` stands for the field of that name."""

    pattern: ClassVar[str] = ""

    @classmethod
    def parse(cls, text: str, *, allow_latest: bool = False) -> Self:
        """Returns the parts of a name.

        Args:
            text: The name.
            allow_latest: Take `versions/latest` too, as version `LATEST`.

        Raises:
            InvalidName: The text does not have the form of `pattern`.
        """
        expected = cls.pattern.split("/")
        found = text.split("/")
        if len(expected) != len(found):
            raise InvalidName(text, cls.pattern)
        parts: list[str | int] = []
        for form, value in zip(expected, found, strict=True):
            kind = form.strip("{}")
            if kind == form:
                if form != value:
                    raise InvalidName(text, cls.pattern)
            elif kind == "version" and value == "latest" and allow_latest:
                parts.append(LATEST)
            elif problem := _check(value, kind):
                raise InvalidName(text, cls.pattern, problem)
            else:
                parts.append(int(value) if kind in {"version", "attempt", "step", "validation", "trial"} else value)
        return cls(*parts)

    def __str__(self) -> str:
        names: tuple[str, ...] = self.__match_args__  # as a class of names has them; `fields` takes longer
        parts = {name: getattr(self, name) for name in names}
        if parts.get("version") == LATEST:
            parts["version"] = "latest"
        return self.pattern.format(**parts)


@dataclass(frozen=True, slots=True)
class ProjectName(ResourceName):
    """A project, the tenant that owns everything below it."""

    pattern: ClassVar[str] = "projects/{project}"
    project: str


@dataclass(frozen=True, slots=True)
class DatasetName(ResourceName):
    """A data set."""

    pattern: ClassVar[str] = "projects/{project}/datasets/{dataset}"
    project: str
    dataset: str

    def version(self, number: int) -> "DatasetVersionName":
        """Returns the name of one of its versions."""
        return DatasetVersionName(self.project, self.dataset, number)


@dataclass(frozen=True, slots=True)
class ModelName(ResourceName):
    """A model."""

    pattern: ClassVar[str] = "projects/{project}/models/{model}"
    project: str
    model: str

    def version(self, number: int) -> "ModelVersionName":
        """Returns the name of one of its versions."""
        return ModelVersionName(self.project, self.model, number)

    def alias(self, alias: str) -> "AliasName":
        """Returns the name of one of its aliases."""
        return AliasName(self.project, self.model, alias)


@dataclass(frozen=True, slots=True)
class DatasetVersionName(ResourceName):
    """A version of a data set."""

    pattern: ClassVar[str] = "projects/{project}/datasets/{dataset}/versions/{version}"
    project: str
    dataset: str
    version: int

    @property
    def parent(self) -> DatasetName:
        """The data set."""
        return DatasetName(self.project, self.dataset)


@dataclass(frozen=True, slots=True)
class ModelVersionName(ResourceName):
    """A version of a model."""

    pattern: ClassVar[str] = "projects/{project}/models/{model}/versions/{version}"
    project: str
    model: str
    version: int

    @property
    def parent(self) -> ModelName:
        """The model."""
        return ModelName(self.project, self.model)

    def validation(self, number: int) -> "ValidationName":
        """Returns the name of one of the reports on it, counted from 1."""
        return ValidationName(self.project, self.model, self.version, number)


@dataclass(frozen=True, slots=True)
class ValidationName(ResourceName):
    """A validation report on a version of a model, counted from 1."""

    pattern: ClassVar[str] = "projects/{project}/models/{model}/versions/{version}/validations/{validation}"
    project: str
    model: str
    version: int
    validation: int


@dataclass(frozen=True, slots=True)
class AliasName(ResourceName):
    """An alias of a model: a name that is moved from version to version."""

    pattern: ClassVar[str] = "projects/{project}/models/{model}/aliases/{alias}"
    project: str
    model: str
    alias: str

    @property
    def parent(self) -> ModelName:
        """The model."""
        return ModelName(self.project, self.model)


@dataclass(frozen=True, slots=True)
class PromotionName(ResourceName):
    """A version's place in the deploy location."""

    pattern: ClassVar[str] = "projects/{project}/models/{model}/versions/{version}/promotion"
    project: str
    model: str
    version: int

    @property
    def parent(self) -> ModelVersionName:
        """The version."""
        return ModelVersionName(self.project, self.model, self.version)


@dataclass(frozen=True, slots=True)
class PolicyName(ResourceName):
    """A gate policy of a model."""

    pattern: ClassVar[str] = "projects/{project}/models/{model}/policies/{policy}"
    project: str
    model: str
    policy: str

    @property
    def parent(self) -> ModelName:
        """The model."""
        return ModelName(self.project, self.model)


@dataclass(frozen=True, slots=True)
class BlobName(ResourceName):
    """Bytes by their SHA-256."""

    pattern: ClassVar[str] = "projects/{project}/blobs/{digest}"
    project: str
    digest: str


@dataclass(frozen=True, slots=True)
class UploadName(ResourceName):
    """An upload: of the bytes with this SHA-256, or of bytes whose digest comes last, by an id of the caller's."""

    pattern: ClassVar[str] = "projects/{project}/uploads/{upload}"
    project: str
    upload: str

    @property
    def digest(self) -> str:
        """The digest, when it goes by that; else empty."""
        return self.upload if is_digest(self.upload) else ""


@dataclass(frozen=True, slots=True)
class JobName(ResourceName):
    """A job."""

    pattern: ClassVar[str] = "projects/{project}/jobs/{job}"
    project: str
    job: str

    def attempt(self, number: int) -> "AttemptName":
        """Returns the name of one of its attempts, counted from 1."""
        return AttemptName(self.project, self.job, number)

    def checkpoint(self, step: int) -> "CheckpointName":
        """Returns the name of its checkpoint after an optimiser step."""
        return CheckpointName(self.project, self.job, step)


@dataclass(frozen=True, slots=True)
class AttemptName(ResourceName):
    """An attempt of a job, counted from 1."""

    pattern: ClassVar[str] = "projects/{project}/jobs/{job}/attempts/{attempt}"
    project: str
    job: str
    attempt: int

    @property
    def parent(self) -> JobName:
        """The job."""
        return JobName(self.project, self.job)


@dataclass(frozen=True, slots=True)
class CheckpointName(ResourceName):
    """A checkpoint of a job, by its optimiser step."""

    pattern: ClassVar[str] = "projects/{project}/jobs/{job}/checkpoints/{step}"
    project: str
    job: str
    step: int

    @property
    def parent(self) -> JobName:
        """The job."""
        return JobName(self.project, self.job)


@dataclass(frozen=True, slots=True)
class SweepName(ResourceName):
    """A sweep."""

    pattern: ClassVar[str] = "projects/{project}/sweeps/{sweep}"
    project: str
    sweep: str

    def trial(self, number: int) -> "TrialName":
        """Returns the name of one of its trials, counted from 1."""
        return TrialName(self.project, self.sweep, number)


@dataclass(frozen=True, slots=True)
class TrialName(ResourceName):
    """A trial of a sweep, counted from 1."""

    pattern: ClassVar[str] = "projects/{project}/sweeps/{sweep}/trials/{trial}"
    project: str
    sweep: str
    trial: int

    @property
    def parent(self) -> SweepName:
        """The sweep."""
        return SweepName(self.project, self.sweep)


@dataclass(frozen=True, slots=True)
class DeploymentName(ResourceName):
    """A deployment."""

    pattern: ClassVar[str] = "projects/{project}/deployments/{deployment}"
    project: str
    deployment: str


@dataclass(frozen=True, slots=True)
class QueueName(ResourceName):
    """A queue of a project's jobs."""

    pattern: ClassVar[str] = "projects/{project}/queues/{queue}"
    project: str
    queue: str


@dataclass(frozen=True, slots=True)
class NodeName(ResourceName):
    """A node; nodes belong to no project."""

    pattern: ClassVar[str] = "nodes/{node}"
    node: str


@dataclass(frozen=True, slots=True)
class RecipeName(ResourceName):
    """A recipe; recipes are the operator's and belong to no project."""

    pattern: ClassVar[str] = "recipes/{recipe}"
    recipe: str


def parse_model_reference(text: str) -> ModelVersionName | AliasName:
    """Returns what `.../versions/{version}` (also `latest`) or `.../aliases/{alias}` of a model names.

    Raises:
        InvalidName: It is neither.
    """
    if "/aliases/" in text:
        return AliasName.parse(text)
    if "/versions/" in text:
        return ModelVersionName.parse(text, allow_latest=True)
    raise InvalidName(text, f"{ModelVersionName.pattern} or {AliasName.pattern}")
