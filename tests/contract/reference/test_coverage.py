"""Every reference case and every row of bad input has a test that is there, or says why it has none."""

import ast
import functools
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
SYSTEMS = {"000": 40, "001": 37, "002": 25, "003": 41, "004": 43}
"""Cases of each system."""
WITHOUT = {"later: kubernetes", "later: networks", "later: retrieval", "no test: figures"}


@functools.cache
def listed(file: str) -> dict[str, tuple[str, ...]]:
    """Returns id -> the tests that a list names below it."""
    found: dict[str, tuple[str, ...]] = {}
    for line in Path(__file__).with_name(file).read_text().splitlines():
        if line.startswith("    "):
            last = next(reversed(found))
            found[last] = (*found[last], line.strip())
        elif line and not line.startswith("#"):
            name = line.partition(" ")[0]
            assert name not in found, f"{name} stands twice"
            found[name] = ()
    return found


@functools.cache
def names_of(path: str) -> frozenset[str]:
    """Returns the names of the tests in a file."""
    body = ast.parse((TESTS / path).read_text()).body
    functions = [each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(each.name for each in functions if each.name.startswith("test_"))


def test_nothing_is_left_out() -> None:
    """All cases, and all rows about what callers send, are listed in their order."""
    assert list(listed("cases.txt")) == [
        f"{system}-{n:02}" for system, size in SYSTEMS.items() for n in range(1, size + 1)
    ]
    rows = [row for row in range(1, 96) if row not in (72, 73, 75)]  # as B71, where gRPC answers by itself
    assert list(listed("bad_inputs.txt")) == [f"B{row}" for row in (*rows, 101, 102, 103, 105)]


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in ("cases.txt", "bad_inputs.txt") for name in listed(file)]
)
def test_what_is_listed_has_tests_that_are_there(file: str, name: str) -> None:
    """Each line below it names a test, or it is a case that has none, for one reason."""
    found = listed(file)[name]
    if len(found) == 1 and found[0] in WITHOUT:
        return
    assert found, f"no test of {name}"
    for each in found:
        path, _, test = each.partition("::")
        assert test in names_of(path), f"{each} is not there"
