"""The pulse of a worker, as another process reads it."""

from __future__ import annotations

from pathlib import Path

from services.trainer.pulse import Pulse, silence_s


def test_silence_counts_from_the_last_beat(tmp_path: Path) -> None:
    """Nobody waits before the first beat, nor after a rest; in between the silence grows."""
    path = tmp_path / "pulse"
    assert silence_s(path) is None
    pulse = Pulse(path)
    assert silence_s(path) is None
    pulse.beat()
    first = silence_s(path)
    assert first is not None
    assert 0.0 <= first <= (silence_s(path) or 0.0) < 60.0
    pulse.rest()
    assert silence_s(path) is None


def test_a_torn_file_is_no_silence(tmp_path: Path) -> None:
    """A file that a full disk has cut tells nothing."""
    path = tmp_path / "pulse"
    path.write_bytes(b"\1\2\3")
    assert silence_s(path) is None
