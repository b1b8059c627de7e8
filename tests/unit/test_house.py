"""The budgets and names of the house, as CONTRIBUTING.md states them."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("tuneforge", "services", "benchmarks", "examples")
FUNCTION_LINES, FILE_LINES, MEDIAN_LINES = 60, 400, 150
SAYS_NOTHING = re.compile(r"^(utils?|helpers?|common|misc|base|managers?)$", re.IGNORECASE)


def sources() -> list[Path]:
    """Returns the files that people write."""
    return [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "v1" not in path.parts]


def test_files_fit_their_budget() -> None:
    """No file is longer than 400 lines, and half of them have at most 150."""
    lines = {path: len(path.read_text().splitlines()) for path in sources()}
    assert {str(path): count for path, count in lines.items() if count > FILE_LINES} == {}
    assert statistics.median(lines.values()) <= MEDIAN_LINES


def test_functions_fit_their_budget() -> None:
    """No function is longer than 60 lines."""
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in found.items() if length > FUNCTION_LINES} == {}


def test_names_say_something() -> None:
    """No file and no class has a name that fits anything."""
    names = [path.stem for path in sources()]
    for path in sources():
        names += [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    assert [name for name in names if SAYS_NOTHING.match(name)] == []


def test_the_training_loop_fits_a_page() -> None:
    """Whoever wants to know how a run goes reads one file of at most 180 lines, which knows no tensor."""
    text = (ROOT / "services/trainer/engine/loop.py").read_text()
    assert len(text.splitlines()) <= 180
    assert "import torch" not in text
