"""Commands shown in a page of the documentation, run as a reader would, and their output held against the page.

A block fenced as ```` ```console ```` is a transcript: a line that begins with `$ ` is a command (one that ends with a
backslash goes on in the next line), the lines up to the next command are what it prints. In an expected line `…` stands
for any text; a line that is `…` alone stands for any number of lines. Output before, between and after the expected
lines is taken, so a page need not show all of it, but what it shows must come, in that order.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY = "…"
LIMIT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command and what the page says that it prints."""

    command: str
    expected: tuple[str, ...]
    line: int
    """Line of the page, from 1."""


def steps_of(page: str) -> Iterator[Step]:
    """Yields the commands of a page in order."""
    for block in _BLOCK.finditer(page):
        line = page.count("\n", 0, block.start(1)) + 1
        yield from _steps_of_block(block.group(1).splitlines(), line)


def _steps_of_block(lines: list[str], first_line: int) -> Iterator[Step]:
    starts = [number for number, text in enumerate(lines) if text.startswith("$ ")]
    if not starts or starts[0] != 0:
        raise ValueError(f"line {first_line}: a console block begins with a command")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        split = start
        while lines[split].endswith("\\"):
            split += 1
        command = "\n".join([lines[start][2:], *lines[start + 1 : split + 1]])
        expected = tuple(text.rstrip() for text in lines[split + 1 : end] if text.strip() not in {"", _ANY})
        yield Step(command=command, expected=expected, line=first_line + start)


def run_step(step: Step, folder: Path, env: Mapping[str, str]) -> str:
    """Runs a command and returns what it printed.

    Raises:
        AssertionError: It failed, or did not print what the page shows.
    """
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", step.command],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    told = f"line {step.line} of the page: $ {step.command}\n{done.stdout}"
    assert done.returncode == 0, f"exit code {done.returncode}, {told}"
    printed = iter(done.stdout.splitlines())
    for wanted in step.expected:
        form = re.compile(".*".join(map(re.escape, wanted.split(_ANY))))
        assert any(form.fullmatch(text.rstrip()) for text in printed), f"the page shows\n{wanted}\nbut {told}"
    return done.stdout
