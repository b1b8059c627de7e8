"""JSON files that people write: read strictly, so that nothing that they say twice or cannot say is passed over."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneforge.errors import InvalidArgument, Reason


def read_json_file(path: Path) -> Mapping[str, Any]:
    """Returns what a JSON file has between { and }.

    Raises:
        InvalidArgument: It cannot be read, is something else, or has a key twice.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        message, cure = f"{str(path)!r} cannot be read: {error.strerror}", "Give the path of a JSON file."
    except UnicodeDecodeError:
        message, cure = f"{str(path)!r} is not UTF-8 text", "Save it as UTF-8."
    except json.JSONDecodeError as error:
        problem = error.msg.removesuffix(" starting at")  # a sentence that the parser ends with the place
        message = f"{str(path)!r} is not JSON: line {error.lineno}, column {error.colno}: {problem}"
        cure = "Correct this place."
    except _KeyTwice as error:
        message, cure = f"{str(path)!r} has the key {str(error)!r} twice in one object", "Keep one of the two."
    except ValueError:  # Python reads no whole number of more than 4300 digits
        message, cure = f"{str(path)!r} has a whole number of thousands of digits", "Correct this number."
    except RecursionError:
        message, cure = f"{str(path)!r} has too many objects or lists within each other", "Make it flatter."
    else:
        if isinstance(content, dict):
            return content
        message, cure = f"{str(path)!r} is no JSON object", "Write the fields between { and }."
    raise InvalidArgument(Reason.INVALID_FIELD, message, cure=cure)


class _KeyTwice(ValueError):
    """Of one key Python would keep the last value alone."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _KeyTwice(key[:60])
        found[key] = value
    return found
