"""Click sessions: what was searched, what was shown, and which of it was clicked."""

import math
from collections.abc import Mapping
from typing import Any, Final

from tuneforge.data.problems import ProblemCode, RowFault, kind_of
from tuneforge.data.shapes.texts import json_or_same

_CURE: Final = 'Give each result as {"object_id": ..., "rank": ...}.'
_OPTIONAL: Final = ("search_meta", "payload_filter", "sort_by", "user_id")


def read_session(row: dict[str, Any]) -> dict[str, Any]:
    """Reads a session as a search service records it; ids become texts, `is_irrelevant` is computed anew.

    Raises:
        RowFault: the first fault found.
    """
    results = [_result(each, index) for index, each in enumerate(_list(row["search_results"], "search_results"))]
    shown = {result["object_id"] for result in results}
    if len(shown) < len(results):
        message = f"{len(results) - len(shown)} of its results stand in it twice."
        raise RowFault(ProblemCode.BAD_SESSION, message, "Give each object once.", field="search_results")
    found = enumerate(_list(row.get("events") or [], "events"))
    events = [_event(each, index, shown) for index, each in found]
    query = json_or_same(row["search_query"])
    if query is None or query in ("", [], {}):
        message = "There is no query."
        raise RowFault(ProblemCode.BAD_SESSION, message, "Leave the session out.", field="search_query")
    session: dict[str, Any] = {"search_query": query, "search_results": results, "events": events}
    session["session_id"] = _id(row["session_id"], "session_id")
    if row.get("created_at") is not None:
        session["created_at"] = _time(row["created_at"], "created_at")
    session |= {name: json_or_same(row[name]) for name in _OPTIONAL if row.get(name) is not None}
    session["is_irrelevant"] = not events
    session["is_payload_search"] = row.get("is_payload_search") in (True, "true", "True", 1)
    return session


def read_ranked(row: dict[str, Any]) -> dict[str, Any]:
    """Reads a session as training takes it: `query`, `results`, `ranks` by id, and the `events` that were clicked.

    Raises:
        RowFault: a result has no rank, ranks and results differ in number, or another fault.
    """
    results = [_id(each, f"results[{index}]") for index, each in enumerate(_list(row["results"], "results"))]
    ranks = json_or_same(row["ranks"])
    if not isinstance(ranks, Mapping):
        message = f"It is {kind_of(ranks)}, not an object of id and score."
        raise RowFault(ProblemCode.TYPE_MISMATCH, message, 'Give {"id": score}, null where unknown.', field="ranks")
    if len(ranks) != len(results):
        message = f"There are {len(ranks)} ranks for {len(results)} results."
        raise RowFault(ProblemCode.BAD_SESSION, message, "Give one rank, or null, for each result.", field="ranks")
    without = [each for each in results if each not in ranks]
    if without:
        message = f"The result {without[0][:40]!r} has no rank."
        raise RowFault(ProblemCode.BAD_SESSION, message, "Give one rank, or null, for each result.", field="ranks")
    times = {"created_at": row["timestamp"]} if row.get("timestamp") is not None else {}
    shown = [{"object_id": each, "rank": ranks[each]} for each in results]
    clicked = _list(row.get("events") or [], "events")
    kinds = _list(row.get("event_types") or ["click"] * len(clicked), "event_types")
    if len(kinds) != len(clicked):
        message = f"There are {len(kinds)} event types for {len(clicked)} events."
        raise RowFault(ProblemCode.BAD_SESSION, message, "Give one for each event.", field="event_types")
    events = [{"object_id": each, "event_type": kind} for each, kind in zip(clicked, kinds, strict=True)]
    return read_session(
        {
            "session_id": row.get("session_id") or "",
            "search_query": row["query"],
            "search_results": shown,
            "events": events,
            **times,
        }
    )


def _result(value: Any, index: int) -> dict[str, Any]:
    field = f"search_results[{index}]"
    if not isinstance(value, Mapping) or "object_id" not in value:
        message = f"It is {kind_of(value)}, not a result." if not isinstance(value, Mapping) else "It has no object_id."
        raise RowFault(ProblemCode.BAD_SESSION, message, _CURE, field=field)
    rank = value.get("rank")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int | float) or not math.isfinite(rank)):
        message = f"The rank is {kind_of(rank)}, not a number."
        raise RowFault(ProblemCode.BAD_SESSION, message, "Give a finite number, or null.", field=f"{field}.rank")
    result: dict[str, Any] = {"object_id": _id(value["object_id"], f"{field}.object_id"), "rank": rank}
    if value.get("meta") is not None:
        result["meta"] = value["meta"]
    return result


def _event(value: Any, index: int, shown: set[str]) -> dict[str, Any]:
    field = f"events[{index}]"
    if not isinstance(value, Mapping) or "object_id" not in value:
        cure = 'Give each event as {"object_id": ..., "event_type": "click"}.'
        raise RowFault(ProblemCode.BAD_SESSION, "It is no event with an object_id.", cure, field=field)
    clicked = _id(value["object_id"], f"{field}.object_id")
    if clicked not in shown:
        message = f"The object {clicked[:40]!r} was not among the results."
        cure = "Add it to search_results, or leave the event out."
        raise RowFault(ProblemCode.BAD_SESSION, message, cure, field=f"{field}.object_id")
    event: dict[str, Any] = {"object_id": clicked, "event_type": str(value.get("event_type") or "click")}
    if value.get("event_id") is not None:
        event["event_id"] = _id(value["event_id"], f"{field}.event_id")
    if value.get("created_at") is not None:
        event["created_at"] = _time(value["created_at"], f"{field}.created_at")
    if value.get("meta") is not None:
        event["meta"] = value["meta"]
    return event


def _list(value: Any, field: str) -> list[Any]:
    value = json_or_same(value)
    if not isinstance(value, list):
        message = f"It is {kind_of(value)}, not a list."
        raise RowFault(ProblemCode.TYPE_MISMATCH, message, "Give a list.", field=field)
    return value


def _id(value: Any, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        message = f"It is {kind_of(value)}, not an id."
        raise RowFault(ProblemCode.TYPE_MISMATCH, message, "Give a text or a whole number.", field=field)
    return str(value)


def _time(value: Any, field: str) -> float:
    try:
        seconds = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < 1e11:
        message = "It is no time in seconds since 1970."
        raise RowFault(ProblemCode.BAD_SESSION, message, "Give a number of seconds.", field=field)
    return seconds
