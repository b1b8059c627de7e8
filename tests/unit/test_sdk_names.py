"""Short names."""

from collections.abc import Callable

import pytest

from tuneforge import _short_names as names
from tuneforge.cli.output import short
from tuneforge.errors import InvalidArgument


@pytest.mark.parametrize(
    ("function", "given", "whole"),
    [
        (names.job, "my-job", "projects/p/jobs/my-job"),
        (names.job, "projects/q/jobs/other", "projects/q/jobs/other"),
        (names.dataset, "rows", "projects/p/datasets/rows"),
        (names.dataset_version, "rows", "projects/p/datasets/rows/versions/latest"),
        (names.dataset_version, "rows/3", "projects/p/datasets/rows/versions/3"),
        (names.dataset_version, "projects/q/datasets/rows", "projects/q/datasets/rows/versions/latest"),
        (names.model_version, "m", "projects/p/models/m/versions/latest"),
        (names.model_version, "m/3", "projects/p/models/m/versions/3"),
        (names.model_version, "m@production", "projects/p/models/m/aliases/production"),
        (names.model_version, "projects/q/models/m@blue", "projects/q/models/m/aliases/blue"),
        (names.model_version, "projects/q/models/m/versions/2", "projects/q/models/m/versions/2"),
        (names.deployment, "d", "projects/p/deployments/d"),
    ],
)
def test_short_names_become_whole(function: Callable[[str, str], str], given: str, whole: str) -> None:
    """People type short names, the wire carries whole ones."""
    assert function("p", given) == whole


@pytest.mark.parametrize(
    "given", ["", "Upper", "a/b/c", "m/x", "m/0", "m@", "../up", "a" * 64, "projects/p/models/m/no/1"]
)
def test_other_texts_are_refused(given: str) -> None:
    """What is no name is refused with the form that is expected."""
    with pytest.raises(InvalidArgument, match="form"):
        names.model_version("p", given)


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        ("projects/p/jobs/my-job", "my-job"),
        ("projects/p/models/m/versions/3", "m/3"),
        ("projects/p/models/m/aliases/production", "m@production"),
        ("nodes/n1", "n1"),
        (None, "-"),
    ],
)
def test_people_see_short_names(whole: str | None, expected: str) -> None:
    """What is printed can be typed again."""
    assert short(whole) == expected
