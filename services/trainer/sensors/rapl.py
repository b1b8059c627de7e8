"""Energy of the host's processors through RAPL, which Linux shows under /sys/class/powercap.

Many hosts let only root read it, and most virtual machines have none: then there is no figure, and none is made up.
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class PackageEnergy:
    """What all processor packages have taken since this was made."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        """Finds the packages whose counters can be read below `folder`."""
        # `intel-rapl:0` is a package (of AMD's processors too), `intel-rapl:0:0` a part of one.
        self._counters = [
            each
            for each in sorted(folder.glob("intel-rapl:*"))
            if each.name.count(":") == 1 and _read(each / "energy_uj") is not None
        ]
        self._last = {each: _read(each / "energy_uj") for each in self._counters}
        self._joules = 0.0

    def joules(self) -> float | None:
        """Returns the energy so far; `None` where the host does not tell."""
        if not self._counters:
            return None
        for counter in self._counters:
            now, before = _read(counter / "energy_uj"), self._last[counter]
            if now is None or before is None:
                continue
            moved = now - before
            if moved < 0:  # the counter began anew
                moved += _read(counter / "max_energy_range_uj") or 0
            self._joules += max(0, moved) / 1e6
            self._last[counter] = now
        return self._joules


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
