"""What attempts on this machine compute with, as far as it decides their numbers. Needs no torch."""

import functools
import importlib.metadata
import platform
from pathlib import Path

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
"""Libraries whose versions decide the numbers of a run."""
_KERNELS = frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "asimd", "sve", "sve2", "vxe"})
"""Instructions of a processor that torch chooses its kernels by."""


@functools.cache
def version(package: str) -> str:
    """Returns the version of a package; `none` where it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def software() -> str:
    """Returns versions and processor in words; nodes that train one job together need the same."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    instructions = " ".join(("", *sorted(_KERNELS & _instructions())))
    return f"{versions}, {platform.system()} {platform.machine()}{instructions}"


def _instructions() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return set()
    told = (line.partition(":") for line in lines)
    return next((set(words.split()) for name, _, words in told if name.strip().lower() in {"flags", "features"}), set())
