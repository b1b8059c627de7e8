"""What a seed decides beforehand: jobs, nodes, what users do, and which faults come when. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

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
    after: str = ""
    """The job that must have succeeded before; empty: none."""


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
class Rule:
    """What the operator sets of the project's queue while the faults happen, and takes away afterwards."""

    max_jobs: int = 0
    """Jobs at once; 0: any number."""
    device_s: float = 0.0
    """Device-seconds that may be spent each day; 0: any number. A day ends while the faults happen."""
    day_ends_s: float = 0.0
    """When it does."""
    paused_s: tuple[float, float] = (0.0, 0.0)
    """From when until when nothing new starts."""


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
    rule: Rule | None = None
    """None: the queue has no limits."""


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
    for number in range(2, len(jobs) + 1):
        if chance.random() < 0.4:
            jobs[f"j{number}"] = replace(jobs[f"j{number}"], after=f"j{chance.randrange(1, number)}")
    return Story(
        nodes=nodes,
        jobs=jobs,
        rule=_rule(chance) if chance.random() < 0.3 else None,
        wishes=tuple(sorted(wishes, key=lambda wish: wish.at_s)),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        budget=budget,
    )


def _rule(chance: random.Random) -> Rule:
    begin = chance.uniform(0.0, HORIZON_S)
    return Rule(
        max_jobs=chance.choice((0, 1)),
        device_s=chance.choice((0.0, 5.5, 6.5, 8.0)),
        day_ends_s=chance.uniform(1.0, 2 * HORIZON_S),
        paused_s=chance.choice(((0.0, 0.0), (begin, begin + 3.0))),
    )
