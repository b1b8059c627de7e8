"""A user's type checker understands the SDK: right programs pass, wrong ones are refused at the right lines."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def check(path: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Runs mypy as a user would, on one file."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--hide-error-context"]
    return subprocess.run(
        [*command, f"--cache-dir={cache}", "--follow-imports=silent", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_program_with_the_public_api_is_accepted() -> None:
    """Everything public has the type that its documentation says."""
    done = check(HERE / "public_api.py", ROOT / ".mypy_cache")
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr


def test_wrong_programs_are_refused(tmp_path: Path) -> None:
    """Each mistake is found where it is made, with its code, and nothing else is."""
    source = (HERE / "rejected.txt").read_text()  # no .py, so that the checks of this repository pass it over
    path = tmp_path / "rejected.py"
    path.write_text(source)
    expected = {
        (number, match.group(1))
        for number, line in enumerate(source.splitlines(), 1)
        if (match := re.search(r"# E: ([\w-]+)$", line))
    }
    done = check(path, ROOT / ".mypy_cache")
    found = {
        (int(match.group(1)), match.group(2))
        for match in re.finditer(r":(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    }
    assert found == expected, done.stdout
