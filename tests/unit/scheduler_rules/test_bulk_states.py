"""From which states a verb for many jobs changes something: those of the same verb for one job."""

from __future__ import annotations

from services.scheduler.jobs import TERMINAL, TRANSITIONS, JobState
from services.scheduler.lifecycle.bulk import STATES


def test_states_of_verbs_have_a_way_to_what_the_verb_wants() -> None:
    """Each state that a verb for many jobs takes leads where it wants, and no other state does, but PREEMPTING."""
    wants = {
        "cancel": {JobState.CANCELLING, JobState.CANCELLED},
        "pause": {JobState.PAUSING, JobState.PAUSED},
    }
    for verb, targets in wants.items():
        leading = {state for state in JobState if TRANSITIONS[state] & targets}
        assert leading - STATES[verb] <= targets, verb
        assert STATES[verb] <= leading, verb
    assert STATES["delete"] == TERMINAL
    assert STATES["resume"] == {JobState.PAUSED}
