"""What the trainer adds to `/metrics`."""

from prometheus_client import Gauge

from services.trainer.agent import Agent
from services.trainer.launching import WorkerLauncher

_SLOTS = Gauge("tuneforge_trainer_slots", "Attempts that the node runs at once")
_LIVING = Gauge("tuneforge_trainer_attempts", "Attempts that have not ended")
_HELD = Gauge("tuneforge_trainer_attempts_held", "Attempts on the node, those that wait for acknowledgement too")
_WARM = Gauge("tuneforge_trainer_fork_server_warm", "1 while a worker can be started at once")


def show(agent: Agent, launcher: WorkerLauncher) -> None:
    """Lets `/metrics` look at a node; the newest node of a process is shown."""
    _SLOTS.set_function(lambda: agent.node().capacity.slots)
    _LIVING.set_function(lambda: sum(view.end is None for view in agent.node().attempts))
    _HELD.set_function(lambda: len(agent.node().attempts))
    _WARM.set_function(lambda: launcher.is_warm)
