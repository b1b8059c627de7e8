"""What a node tells of the software that its attempts compute with."""

import platform
import subprocess
import sys

import torch

from services.trainer.engine.resolution import environment
from services.trainer.node import measure_capacity
from services.trainer.software import PACKAGES, software


def test_a_node_tells_the_versions_that_its_attempts_find() -> None:
    """Of each library that decides the numbers, and the processor; the same in each process, without torch."""
    told, found = measure_capacity(1).software, environment(torch.device("cpu"), threads=1)
    assert told.startswith(", ".join(f"{package} {found[package]}" for package in PACKAGES))
    assert f"{platform.system()} {platform.machine()}" in told
    script = "import sys, services.trainer.software as s; print(s.software()); assert 'torch' not in sys.modules"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == software()


def test_instructions_that_torch_chooses_kernels_by_are_told() -> None:
    """Two processors for which it would choose other ones are told apart."""
    capability = torch.backends.cpu.get_cpu_capability()
    wanted = {"AVX512": "avx512f", "AVX2": "avx2"}.get(capability, "")
    assert wanted in software()
