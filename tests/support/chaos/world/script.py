"""What a seed decides beforehand: jobs, nodes, what users do, and which faults come when. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

STEPS = 3
"""Steps of every run."""
STEP_S = 0.7
HORIZON_S = 5.0
"""No fault begins later."""

FAULTS = (
    "partition", "deaf", "mute", "flaky", "node crash", "node wiped", "agent killed", "worker lost", "freeze",
    "scheduler killed", "dies before a commit", "dies inside a transaction", "dies after a commit", "clock forward",
    "clock backward", "registry away", "disk refuses", "lie",
)  # fmt: skip
"""Everything that may happen. `deaf` nodes hear nothing and `mute` ones are not heard."""


@dataclass(frozen=True, slots=True)
class Script:
    """What the workers of one job do."""

    saves_every: int
    is_durable: bool
    fails_at: int
    """Step after which its own fault ends it; 0: none."""
    nodes: int


@dataclass(frozen=True, slots=True)
class Wish:
    """Something that a user asks for."""

    at_s: float
    verb: str
    job: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to the world."""

    at_s: float
    kind: str
    node: int
    lasts_s: float
    count: int
    """Of commits until the process dies; or how far the clock jumps, in seconds."""


@dataclass(frozen=True, slots=True)
class Story:
    """One seed's world."""

    nodes: tuple[int, ...]
    """Slots of each."""
    jobs: dict[str, Script]
    wishes: tuple[Wish, ...]
    faults: tuple[Fault, ...]
    budget: int
    """Infrastructure faults that a job may have."""


def story(seed: int) -> Story:
    """Returns the world of a seed."""
    chance = random.Random(seed)
    nodes = tuple(chance.choice((1, 1, 2)) for _ in range(chance.choice((1, 2, 2))))
    jobs = {
        f"j{number}": Script(
            saves_every=chance.choice((1, 2)),
            is_durable=chance.random() < 0.7,
            fails_at=chance.choice((0, 0, 0, 0, 0, 2)),
            nodes=2 if len(nodes) > 1 and chance.random() < 0.2 else 1,
        )
        for number in range(1, chance.choice((1, 1, 2, 2, 3)) + 1)
    }
    wishes = [Wish(chance.uniform(0.0, 1.0), "create", job) for job in jobs]
    for job in jobs:
        if chance.random() < 0.35:
            verb = chance.choice(("cancel", "pause", "pause"))
            wishes.append(Wish(chance.uniform(0.5, HORIZON_S), verb, job))
            if chance.random() < 0.5:
                wishes.append(Wish(chance.uniform(0.5, HORIZON_S), chance.choice(("cancel", "resume")), job))
    faults = [
        Fault(
            at_s=chance.uniform(0.0, HORIZON_S),
            kind=chance.choice(FAULTS),
            node=chance.randrange(len(nodes)),
            lasts_s=chance.choice((0.2, 1.0, 3.0, 9.0)),
            count=chance.choice((1, 2, 3, 5, 8, 30)),
        )
        for _ in range(chance.choice((1, 2, 3, 4)))
    ]
    budget = chance.choice((2, 50, 50))
    return Story(
        nodes=nodes,
        jobs=jobs,
        wishes=tuple(sorted(wishes, key=lambda wish: wish.at_s)),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        budget=budget,
    )
