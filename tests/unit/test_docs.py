"""Pages for people name what there is: commands, flags, and the files that they link to."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tuneforge.cli.app import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "services").glob("*/README.md")])
# The command, its sub-command, and what follows; options of the whole command line may stand before.
OURS = re.compile(
    r"(?<!from )\btuneforge ((?:--?[a-z-]+ \S+ )*)([a-z]+(?:-[a-z]+)*)(?: ([a-z]+(?:-[a-z]+)*))?([^`\n]*)"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the repository has that file, from where the page lies."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_flags_exist(page: Path) -> None:
    """What stands in code after `tuneforge` is a command, and its flags are those of that command."""
    wrong = [problem for code in _code(page.read_text()) for problem in _problems(code)]
    assert wrong == []


def _code(text: str) -> Iterator[str]:
    """Yields blocks and spans of code, with continued lines joined."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from block.replace("\\\n", " ").splitlines()
    without_blocks = re.sub(r"^```[a-z]*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from (span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", without_blocks))


def _problems(code: str) -> Iterator[str]:
    for _, first, second, rest in OURS.findall(code.partition("#")[0]):
        command = cli.commands.get(first)
        if command is None:
            yield f"no command {first!r} in {code!r}"
            continue
        if isinstance(command, click.Group) and second:
            found = command.commands.get(second)
            if found is None:
                yield f"no command {second!r} of {first!r} in {code!r}"
                continue
            command = found
        named = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        known = named | {"--help"}
        used = re.findall(r"(?<!\S)(--[a-z][a-z0-9-]*)", rest.partition(";")[0].partition("|")[0])
        yield from (f"no flag {flag} in {code!r}" for flag in used if flag not in known)
