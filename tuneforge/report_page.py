"""The report of a run as one HTML file: plots, what was asked for, what it was made with, what was found.

The file needs nothing else and can run nothing: its first line forbids every browser to load or to execute anything.
The same content gives the same bytes.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tuneforge.charts import STYLE, Chart, line_chart

REPORT: Final = "report.html"
"""Name of the file."""
PREAMBLE: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8>"
    "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
"""What every report begins with; the registry takes no other HTML."""

Table = Sequence[Sequence[str]]
"""Rows of cells, the first row being the head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report; what is empty is left out."""

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    """Name -> value."""
    charts: Sequence[Chart] = ()
    """Lines over a common x axis."""
    drawings: Sequence[str] = ()
    """Pictures that are made already, as SVG; texts in them are escaped."""
    table: Table = ()
    """A table with a head."""
    text: str = ""
    """Text that is shown as it is, e.g. JSON."""


def report_page(title: str, sections: Sequence[Section], *, style: str = "") -> str:
    """Returns the page.

    Args:
        title: What was made.
        sections: In their order.
        style: What its drawings need beside the style of all reports.
    """
    head = '<meta name=viewport content="width=device-width, initial-scale=1">'
    name = html.escape(title)
    body = "".join(_section(section) for section in sections)
    return f"{PREAMBLE}{head}<title>{name}</title><style>{STYLE}{style}</style><h1>{name}</h1>{body}</html>\n"


def _section(section: Section) -> str:
    parts = [*(line_chart(chart) for chart in section.charts), *section.drawings]
    if section.facts:
        rows = (
            f"<tr><th>{html.escape(name)}</th><td><code>{html.escape(value)}</code></td></tr>"
            for name, value in section.facts.items()
        )
        parts.append(f"<table>{''.join(rows)}</table>")
    if section.table:
        head, *rows_of_cells = section.table
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row_of_cells) for row_of_cells in rows_of_cells)
        parts.append(f"<table><tr>{cells}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")
    if section.text:
        parts.append(f"<pre>{html.escape(section.text)}</pre>")
    return f"<h2>{html.escape(section.title)}</h2>{''.join(parts)}" if parts else ""
