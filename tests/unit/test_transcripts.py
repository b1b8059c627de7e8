"""What holds the documentation to its word can itself fail."""

from pathlib import Path

import pytest

from tests.support.transcripts import run_step, steps_of

PAGE = """
# A page

```console
$ echo one; \\
  echo two
one
…
two
$ false; echo "exit code $?"
exit code 1
```

```sh
not a transcript
```
"""


def test_commands_are_found_with_their_output_and_their_line() -> None:
    """Continued lines belong together, other blocks are left alone."""
    first, second = steps_of(PAGE)
    assert (first.command, first.expected, first.line) == ("echo one; \\\n  echo two", ("one", "two"), 5)
    assert (second.command, second.expected) == ('false; echo "exit code $?"', ("exit code 1",))


@pytest.mark.parametrize(
    ("command", "output", "is_true"),
    [
        ("echo a; echo b; echo c", "a\nc", True),
        ("echo a; echo b", "b\na", False),
        ("echo version 17 of 20", "version … of …", True),
        ("echo version 17", "version", False),
        ("exit 3", "", False),
        ("echo on stderr >&2", "on stderr", True),
    ],
)
def test_a_page_that_lies_is_found(command: str, output: str, is_true: bool, tmp_path: Path) -> None:
    """Lines must come, whole, in their order, and the command must succeed."""
    (step,) = steps_of(f"```console\n$ {command}\n{output}\n```\n")
    if is_true:
        run_step(step, tmp_path, {})
    else:
        with pytest.raises(AssertionError, match=r"line 2 of the page"):
            run_step(step, tmp_path, {})
