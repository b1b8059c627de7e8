"""Every command that the registry's page shows is run against real services, and prints what the page says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from services.launcher import SERVICES
from tests.support.suite import new_suite
from tests.support.transcripts import run_step, steps_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "registry.md"


@pytest.mark.heavy
def test_the_page_of_the_registry_tells_the_truth(tmp_path: Path) -> None:
    """The page from its first command to its last, in order, over one suite."""
    suite = new_suite(tmp_path / "data", {"TUNEFORGE_TRAINER_CPU_MILLIS": "2000", "OMP_NUM_THREADS": "2"})
    try:
        suite.start()
        env = {f"TUNEFORGE_{service.upper()}_ADDRESS": suite.address(service) for service in SERVICES}
        env |= {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "DATA": str(tmp_path / "data")}
        for step in steps_of(PAGE.read_text(encoding="utf-8")):
            run_step(step, ROOT, env)
    finally:
        suite.stop()
