"""The peak of a run's memory is its own."""

import pytest
import torch

from services.trainer.engine.peak import read_peaks, reset_peaks


def test_a_device_that_nothing_has_used_is_made_ready_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's allocator is there once CUDA is: a run that asks it before, as its first act, would end there."""
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(f"reset {device}"))
    reset_peaks(torch.device("cuda:0"))
    assert calls == ["init", "reset cuda:0"]


def test_what_was_before_does_not_count() -> None:
    """Memory that was given back before the count began is not in the peak; what was held since then is."""
    cpu = torch.device("cpu")
    torch.ones(64_000_000).sum()
    before = read_peaks(cpu).host
    reset_peaks(cpu)
    begun = read_peaks(cpu).host
    assert begun < before - 100_000_000
    torch.ones(32_000_000).sum()
    assert read_peaks(cpu).host > begun + 100_000_000
