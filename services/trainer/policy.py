"""Who may call the trainer's methods."""

from collections.abc import Mapping

from services.grpckit.auth import Policy

# An unmanaged node takes attempts from whoever may write; on a managed one the manager's secret and the fencing token
# keep everybody but the scheduler away. What ends an attempt is answered while the node drains too: its end is what the
# scheduler waits for.
POLICIES: Mapping[str, Policy] = {
    "GetNode": Policy("nodes.read", None, while_draining=True, is_quiet=True),
    "StartAttempt": Policy("attempts.write", "name"),
    "WatchAttempt": Policy("attempts.read", "name", while_draining=True),
    "AckEvents": Policy("attempts.write", "name", while_draining=True, is_quiet=True),
    "StopAttempt": Policy("attempts.write", "name", while_draining=True),
}
