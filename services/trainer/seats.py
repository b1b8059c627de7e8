"""The place of a worker among those of an attempt that runs on several nodes."""

from __future__ import annotations

import hashlib

from services.trainer.engine.training_task import Seat
from services.trainer.folders import AttemptFolder, write_json
from services.trainer.orders import Assignment


def take_seat(assignment: Assignment, files: AttemptFolder) -> Seat | None:
    """Returns the worker's place, or None when the attempt has one node.

    The worker of rank 0 listens from here on, and writes down where, so that its node can tell the other nodes.

    Raises:
        OSError: No port can be listened on.
    """
    if assignment.world_size == 1:
        return None
    # Who does not know the token meets nobody; the token itself is not sent.
    secret = hashlib.sha256(assignment.token.encode()).hexdigest()[:16]
    name, rank = f"{assignment.name}:{secret}", assignment.node_rank
    if rank:
        return Seat(rank=rank, size=assignment.world_size, address=assignment.rendezvous, name=name)
    from services.trainer.engine.rendezvous import listen  # with torch: workers alone may

    host = assignment.host or "127.0.0.1"
    listening = listen(host)
    address = f"[{host}]" if ":" in host else host
    address = f"{address}:{listening.getsockname()[1]}"
    write_json(files.rendezvous, {"address": address})
    return Seat(rank=0, size=assignment.world_size, address=address, listening=listening.detach(), name=name)
