"""What an attempt asks of its nodes, in the columns of its job."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row

from services.scheduler.records import Needs


def needs_values(needs: Needs) -> dict[str, Any]:
    """Returns the columns."""
    return {
        "nodes": needs.nodes,
        "devices": needs.devices,
        "peak_bytes": needs.peak_bytes,
        "device_peak_bytes": needs.device_peak_bytes,
        "beside_bytes": needs.beside_bytes,
        "host_bytes": needs.host_bytes,
        "cpu_millis": needs.cpu_millis,
        "node_labels": json.dumps(dict(needs.labels)),
        "exclusions": _exclusions(needs),
    }


def _exclusions(needs: Needs) -> str:
    if not (needs.exclude_nodes or needs.exclude_labels or needs.device_kinds):
        return ""
    found = {
        "nodes": sorted(needs.exclude_nodes),
        "labels": dict(needs.exclude_labels),
        "kinds": list(needs.device_kinds),
    }
    return json.dumps(found)


def needs_of(row: Row[Any]) -> Needs:
    """Reads the columns."""
    excluded = json.loads(row.exclusions) if row.exclusions else {}
    return Needs(
        nodes=row.nodes,
        devices=row.devices,
        peak_bytes=row.peak_bytes,
        device_peak_bytes=row.peak_bytes if row.device_peak_bytes is None else row.device_peak_bytes,
        beside_bytes=row.beside_bytes or 0,
        host_bytes=row.host_bytes,
        cpu_millis=row.cpu_millis,
        labels=json.loads(row.node_labels),
        exclude_nodes=frozenset(excluded.get("nodes", ())),
        exclude_labels=excluded.get("labels", {}),
        device_kinds=tuple(excluded.get("kinds", ())),
    )
