"""The trainer's settings and the orders that it writes for its workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.grpckit.settings import SettingsError
from services.trainer.orders import StopMode, StopOrder
from services.trainer.settings import TrainerSettings
from tuneforge.names import is_id


def test_defaults_make_an_unmanaged_node(tmp_path: Path) -> None:
    """Without settings a trainer listens on loopback, has no scheduler, and takes its name from the host."""
    settings = TrainerSettings.from_env({"TUNEFORGE_DATA": str(tmp_path)})
    assert settings.server.listen == "127.0.0.1:7103"
    assert not settings.is_managed
    assert is_id(settings.node_id)
    assert settings.inputs == tmp_path / "inputs"


def test_all_wrong_settings_are_named() -> None:
    """Every variable that is wrong is told at once."""
    wrong = {
        "TUNEFORGE_TRAINER_NODE": "No Node",
        "TUNEFORGE_TRAINER_SLOTS": "-1",
        "TUNEFORGE_TRAINER_LABELS": '["a"]',
        "TUNEFORGE_TRAINER_SPOOL_BYTES": "1",
        "TUNEFORGE_TRAINER_TOKENS_BYTES": "-1",
        "TUNEFORGE_SCHEDULER_ADDRESS": "nowhere",
        "TUNEFORGE_TRAINER_DRAIN_GRACE": "nan",
    }
    with pytest.raises(SettingsError) as caught:
        TrainerSettings.from_env(wrong)
    assert len(caught.value.problems) == len(wrong)
    for name in wrong:
        assert any(name in problem for problem in caught.value.problems), name


def test_labels_are_read() -> None:
    """Labels are a JSON object of texts."""
    assert TrainerSettings.from_env({"TUNEFORGE_TRAINER_LABELS": '{"zone": "a"}'}).labels == {"zone": "a"}


@pytest.mark.parametrize("hostname", ["vm", "10-0-0-1", "Lab_3.example.org", "x" * 80, "---", "a-" * 40])
def test_any_hostname_becomes_an_id(monkeypatch: pytest.MonkeyPatch, hostname: str) -> None:
    """Whatever a host is called, its node has a valid name."""
    monkeypatch.setattr("services.trainer.settings.socket.gethostname", lambda: hostname)
    assert is_id(TrainerSettings.from_env({}).node_id)


def test_stop_orders_add_up(tmp_path: Path) -> None:
    """A cancel stays a cancel, and the earlier end counts, in whatever order they came."""
    save = StopOrder(mode=StopMode.CHECKPOINT, kill_at=10.0)
    cancel = StopOrder(mode=StopMode.CANCEL, kill_at=20.0)
    expected = StopOrder(mode=StopMode.CANCEL, kill_at=10.0)
    assert save.merged(cancel) == cancel.merged(save) == expected
    assert StopOrder.read(tmp_path / "stop.json") is None
    expected.write(tmp_path / "stop.json")
    assert StopOrder.read(tmp_path / "stop.json") == expected
