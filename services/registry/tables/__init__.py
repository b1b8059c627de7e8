"""The registry's tables, as the newest migration leaves them; a test holds the two against each other."""

from pathlib import Path

from services.registry.tables.aliases import ALIAS_CHANGES, ALIAS_CLOCKS, ALIASES
from services.registry.tables.blobs import BLOB_OWNER, BLOB_PLACES, BLOB_TOMBSTONES, BLOB_UPLOADS, BLOB_USES, BLOBS
from services.registry.tables.datasets import DATASET_TAGS, DATASET_VERSIONS, DATASETS
from services.registry.tables.gates import (
    APPROVALS,
    EVALUATIONS,
    GATE_POLICIES,
    GATE_POLICY_CHANGES,
    GATE_POLICY_DATASETS,
)
from services.registry.tables.lineage import LINEAGE_EDGES, LINEAGE_NODES, REVOCATIONS
from services.registry.tables.metadata import METADATA
from services.registry.tables.models import (
    MODEL_FACTS,
    MODEL_LABELS,
    MODEL_METRICS,
    MODEL_VERSIONS,
    MODELS,
    VALIDATION_REPORTS,
)
from services.registry.tables.promotions import PROMOTION_CHANGES, PROMOTIONS
from services.registry.tables.retention import DELETIONS, EXPIRATIONS, HOLDS, PINS, RETENTION_POLICIES
from services.registry.tables.signing import SIGNATURES, SIGNING_KEYS
from services.registry.tables.sources import SOURCES

__all__ = [
    "ALIASES",
    "ALIAS_CHANGES",
    "ALIAS_CLOCKS",
    "APPROVALS",
    "BLOBS",
    "BLOB_OWNER",
    "BLOB_PLACES",
    "BLOB_TOMBSTONES",
    "BLOB_UPLOADS",
    "BLOB_USES",
    "DATASETS",
    "DATASET_TAGS",
    "DATASET_VERSIONS",
    "DELETIONS",
    "EVALUATIONS",
    "EXPIRATIONS",
    "GATE_POLICIES",
    "GATE_POLICY_CHANGES",
    "GATE_POLICY_DATASETS",
    "HOLDS",
    "LINEAGE_EDGES",
    "LINEAGE_NODES",
    "METADATA",
    "MIGRATIONS",
    "MODELS",
    "MODEL_FACTS",
    "MODEL_LABELS",
    "MODEL_METRICS",
    "MODEL_VERSIONS",
    "PINS",
    "PROMOTIONS",
    "PROMOTION_CHANGES",
    "RETENTION_POLICIES",
    "REVOCATIONS",
    "SCHEMA_HEAD",
    "SIGNATURES",
    "SIGNING_KEYS",
    "SOURCES",
    "VALIDATION_REPORTS",
]

SCHEMA_HEAD = "0013"
MIGRATIONS = Path(__file__).parents[1] / "migrations"
