"""Which data the gate policies name, so that a deletion need not read every policy."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from tuneforge.v1 import gates_pb2

revision = "0012"
down_revision = "0011"

_KEY = ("project", "model", "policy")


def upgrade() -> None:
    """Makes the table and fills it from the present revisions."""
    table = op.create_table(
        "gate_policy_datasets",
        sa.Column("dataset", sa.String(255), primary_key=True),
        *(sa.Column(name, sa.String(63), primary_key=True) for name in _KEY),
        sa.ForeignKeyConstraint(_KEY, [f"gate_policies.{name}" for name in _KEY], name="gate_policy_datasets_policy"),
    )
    present = (
        "SELECT h.project, h.model, h.policy, c.record FROM gate_policies h JOIN gate_policy_changes c "
        "ON c.project = h.project AND c.model = h.model AND c.policy = h.policy AND c.revision = h.revision "
        "WHERE NOT h.is_deletion"
    )
    found: list[dict[str, Any]] = []
    for row in op.get_bind().execute(sa.text(present)):
        gates = gates_pb2.GatePolicy.FromString(bytes(row.record)).gates
        named = {name for gate in gates for name in (gate.metric.dataset, gate.comparison.dataset) if name}
        found += [{**{key: getattr(row, key) for key in _KEY}, "dataset": name} for name in sorted(named)]
    if found:
        op.bulk_insert(table, found)
