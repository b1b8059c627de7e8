"""What the collector adds to `/metrics`."""

from prometheus_client import Counter, Gauge

from services.registry.retention.collected import Collected

FREED_BYTES = Counter("tuneforge_registry_collected_bytes", "Bytes of contents that the collector removed")
CONTENTS = Counter("tuneforge_registry_collected_contents", "Contents that the collector removed")
ORPHANS = Counter("tuneforge_registry_collected_orphans", "Contents removed that nothing named")
RUNS = Counter("tuneforge_registry_collections", "Runs of the collector that came to their end")
FAILED_RUNS = Counter("tuneforge_registry_failed_collections", "Runs of the collector that did not")
_LAST = Gauge("tuneforge_registry_last_collection_seconds", "When the last run ended, in seconds since 1970")


def show(found: Collected) -> None:
    """Adds what a run did."""
    RUNS.inc()
    FREED_BYTES.inc(found.freed_bytes)
    CONTENTS.inc(found.contents)
    ORPHANS.inc(found.orphans)
    _LAST.set_to_current_time()
