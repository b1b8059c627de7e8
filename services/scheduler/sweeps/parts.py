"""Puts the sweeps' part of a scheduler together."""

from __future__ import annotations

import random

from services.grpckit.holding import Holding
from services.scheduler.admission import Admission
from services.scheduler.broadcast import Broadcast
from services.scheduler.ledger import Ledger
from services.scheduler.lifecycle.reuse import Reusing
from services.scheduler.settings import Timing
from services.scheduler.sweep_calls import SweepParts
from services.scheduler.sweeps.controller import SweepController
from services.scheduler.sweeps.verbs import SweepVerbs


def sweep_parts(
    ledger: Ledger, admission: Admission, holding: Holding, broadcast: Broadcast, timing: Timing
) -> SweepParts:
    """Returns what the methods of sweeps call; from now on each change of a job wakes the sweeps' loop too."""
    controller = SweepController(
        ledger=ledger,
        admission=admission,
        holding=holding,
        reusing=Reusing(ledger=ledger, registry=admission.registry),
        chance=random.Random(),  # noqa: S311 - jitter, not a secret
        tick_s=timing.sweep_tick_s,
    )
    tell_loop = ledger.on_change

    def tell_both() -> None:
        tell_loop()
        controller.poke()

    ledger.on_change = tell_both
    verbs = SweepVerbs(ledger=ledger, admission=admission, holding=holding, on_change=controller.tell)
    return SweepParts(
        ledger=ledger,
        verbs=verbs,
        controller=controller,
        broadcast=broadcast,
        heartbeat_s=timing.watch_heartbeat_s,
    )
