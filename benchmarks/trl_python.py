"""The environment of the training peers: TRL and `datasets` on top of the project's own torch and transformers.

They are not in the project's environment, where transformers would import them at every start.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

VENV = Path(".tuneforge/peers/trl")


def trl_python() -> str:
    """Returns the Python of the environment (dependency group `bench`), made at the first use."""
    python = (VENV / "bin" / "python").absolute()
    done = VENV / ".ready"
    if not done.exists():
        print("  installing TRL for the comparison, once", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], check=True)
        find = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = Path(subprocess.run(find, check=True, capture_output=True, text=True).stdout.strip())
        (packages / "of_the_project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "-c", "constraints.txt"]
        subprocess.run([*pip, "--group", "bench"], check=True)
        done.touch()
    return str(python)
