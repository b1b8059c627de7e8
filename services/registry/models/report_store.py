"""The rows of validation reports; they are only ever added. See `collections.py` for the manners of such functions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select

from services.grpckit.pages import Page
from services.registry.models.resources import Report
from services.registry.reporters import is_by, kept
from services.registry.tables import VALIDATION_REPORTS
from tuneforge.names import ModelVersionName


def add_report(
    connection: Connection,
    name: ModelVersionName,
    report: Report,
    *,
    creator: str,
    roles: tuple[str, ...],
    time_us: int,
) -> Report:
    """Adds a report on a version that exists, and returns it with its number."""
    newest = connection.execute(
        select(func.max(VALIDATION_REPORTS.c.validation)).where(*_of(name))
    ).scalar_one_or_none()
    number = (newest or 0) + 1
    connection.execute(
        insert(VALIDATION_REPORTS).values(
            project=name.project,
            model=name.model,
            version=name.version,
            validation=number,
            passed=report.passed,
            record=report.record,
            create_time_us=time_us,
            creator=creator,
            roles=kept(roles),
        )
    )
    return replace(report, number=number, create_time_us=time_us, creator=creator, roles=roles)


def list_reports(connection: Connection, name: ModelVersionName, page: Page) -> list[Report]:
    """Returns a page's reports on a version, newest first, and one more when there are more."""
    before = page.after_number(2**31 - 1)
    rows = connection.execute(
        select(VALIDATION_REPORTS)
        .where(*_of(name), VALIDATION_REPORTS.c.validation < before)
        .order_by(VALIDATION_REPORTS.c.validation.desc())
        .limit(page.size + 1)
    )
    return [_report(row) for row in rows]


def counting_reports(connection: Connection, name: ModelVersionName, by: Sequence[str], *, most: int) -> list[Report]:
    """Returns the newest reports on a version by those who count (see `reporters.is_by`), newest first."""
    rows = connection.execute(
        select(VALIDATION_REPORTS)
        .where(*_of(name), is_by(VALIDATION_REPORTS, by))
        .order_by(VALIDATION_REPORTS.c.validation.desc())
        .limit(most)
    )
    return [_report(row) for row in rows]


def _report(row: Row[Any]) -> Report:
    return Report(
        passed=row.passed,
        record=row.record,
        number=row.validation,
        create_time_us=row.create_time_us,
        creator=row.creator,
        roles=tuple(row.roles.split()),
    )


def _of(name: ModelVersionName) -> list[ColumnElement[bool]]:
    columns = VALIDATION_REPORTS.c
    return [columns.project == name.project, columns.model == name.model, columns.version == name.version]
