"""Every reference case has a test that is there, or says why it has none: `cases.txt` is held against the tests."""

import ast
import functools
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
LINES = Path(__file__).with_name("cases.txt").read_text().splitlines()
SIZES = {"000": 40, "001": 37, "002": 25, "003": 41, "004": 43}
"""Cases of each system."""
WITHOUT = {"later: kubernetes", "later: networks", "later: retrieval", "no test: figures", "no test: advice"}


def listed() -> dict[str, list[str]]:
    """Returns id -> the tests of a case."""
    cases: dict[str, list[str]] = {}
    for line in LINES:
        if line.startswith("    "):
            cases[next(reversed(cases))].append(line.strip())
        elif line and not line.startswith("#"):
            assert line[:6] not in cases, f"{line[:6]} stands twice"
            cases[line[:6]] = []
    return cases


@functools.cache
def names_of(path: str) -> frozenset[str]:
    """Returns the names of the tests in a file."""
    body = ast.parse((TESTS / path).read_text()).body
    functions = [each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(each.name for each in functions if each.name.startswith("test_"))


def test_no_case_is_left_out() -> None:
    """All are listed, in their order."""
    assert list(listed()) == [f"{system}-{n:02}" for system, size in SIZES.items() for n in range(1, size + 1)]


@pytest.mark.parametrize("case", listed())
def test_a_case_has_tests_that_are_there(case: str) -> None:
    """Each line below it names a test, or it is one of those that have none, for one reason."""
    found = listed()[case]
    if len(found) == 1 and found[0] in WITHOUT:
        return
    assert found, f"no test of {case}"
    for each in found:
        path, _, name = each.partition("::")
        assert name in names_of(path), f"{each} is not there"
