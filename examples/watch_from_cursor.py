"""A consumer of one job's events that may be killed at any moment and loses and repeats nothing.

    python -m examples.watch_from_cursor JOB FILE

Appends one JSON line an event to FILE. Each line carries the cursor after it; at a start the last whole line says where
to go on, so that line and cursor can never disagree.
"""

import json
import os
import sys
from pathlib import Path

from tuneforge import Client
from tuneforge.cli.output import to_plain


def last_cursor(path: Path) -> str:
    """Returns the cursor of the last whole line, and cuts off a line that was half-written."""
    if not path.exists():
        return ""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        os.truncate(path, len(whole))
    lines = whole.splitlines()
    return json.loads(lines[-1])["cursor"] if lines else ""


def main(job: str, path: Path) -> None:
    """Follows a job to its end."""
    cursor = last_cursor(path)
    with Client() as client, client.jobs.watch(job, cursor=cursor) as stream, path.open("a") as file:
        for event in stream:
            file.write(json.dumps({"cursor": stream.cursor, "event": to_plain(event)}) + "\n")
            file.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
