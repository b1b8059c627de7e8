"""Moments on the command line: `2026-12-24T18:00`, with a time zone or without, or from now on: `+90m`, `+2h`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_FROM_NOW = re.compile(r"\+(\d{1,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType[datetime]):
    """A moment; without a time zone it is local time."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Reads it."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            if (found := _FROM_NOW.fullmatch(text)) is not None:
                return datetime.now(UTC) + timedelta(**{_UNITS[found[2]]: int(found[1])})
            return datetime.fromisoformat(text).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no moment: use e.g. 2026-12-24T18:00, or +2h (s, m, h, d) from now on.", param, ctx)


MOMENT = Moment()
