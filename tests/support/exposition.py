"""Pages of metrics, as Prometheus' own parser reads them."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import TEST_LIMIT_S

Sample = tuple[str, Mapping[str, str]]


class Page:
    """One scrape."""

    def __init__(self, text: str) -> None:
        """Reads a page; raises `ValueError` for what Prometheus would not take."""
        self.types: dict[str, str] = {}
        self.samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            # The parser takes the ending of a counter's name away.
            self.types[family.name + ("_total" if family.type == "counter" else "")] = family.type
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append((dict(sample.labels), sample.value))

    @classmethod
    def fetch(cls, address: str) -> Page:
        """Scrapes an address."""
        with urllib.request.urlopen(address, timeout=TEST_LIMIT_S) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            return cls(answer.read().decode())

    def value(self, name: str, **labels: str) -> float | None:
        """Returns the value of the one sample with these labels among its own; None: there is none."""
        found = [value for own, value in self.samples.get(name, []) if labels.items() <= own.items()]
        assert len(found) <= 1, f"{name} has {len(found)} samples with {labels}"
        return found[0] if found else None

    def labels(self, name: str) -> list[dict[str, str]]:
        """Returns the labels of all samples of a name."""
        return [labels for labels, _ in self.samples.get(name, [])]
