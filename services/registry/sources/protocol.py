"""What the registry and the child process of an import say to each other: a job there, steps back, one a line."""

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from services.registry.sources.addresses import HttpsAddress, HubAddress, PackageAddress, S3Address
from services.registry.sources.allowances import HttpsRules
from services.registry.sources.wanted import Wanted

LONGEST_LINE_BYTES = 16 * 1024 * 1024
"""A listing of the most files that a version may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that the child needs; exactly one of the four places is set."""

    folder: str
    """Where parts are written; it exists."""
    wanted: Wanted
    have: Mapping[str, str] = field(default_factory=dict)
    """Path -> tag of files that are stored already."""
    https: tuple[HttpsAddress, HttpsRules] | None = None
    s3: tuple[S3Address, dict[str, Any]] | None = None
    hub: tuple[HubAddress, dict[str, Any]] | None = None
    package: PackageAddress | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What must not stand in any line that comes back."""
    ca: str = ""
    """PEM file of an authority beside those of the system; empty: none."""

    def to_json(self) -> str:
        """Returns the job as one line."""
        content: dict[str, Any] = {
            "folder": self.folder,
            "wanted": asdict(self.wanted),
            "have": dict(self.have),
            "secrets": self.secrets,
            "ca": self.ca,
        }
        if self.https:
            address, rules = self.https
            networks = [str(network) for network in rules.networks]
            content["https"] = [asdict(address), {"hosts": rules.hosts, "networks": networks}]
        if self.s3:
            content["s3"] = [asdict(self.s3[0]), self.s3[1]]
        if self.hub:
            content["hub"] = [asdict(self.hub[0]), self.hub[1]]
        if self.package:
            content["package"] = asdict(self.package)
        return json.dumps(content)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Returns the job of a line that `to_json` made."""
        content = json.loads(line)
        wanted = content["wanted"] | {"include": tuple(content["wanted"]["include"])}
        places: dict[str, Any] = {}
        if "https" in content:
            address, rules = content["https"]
            networks = tuple(ipaddress.ip_network(text) for text in rules["networks"])
            https_rules = HttpsRules(hosts=tuple(rules["hosts"]), networks=networks)
            places["https"] = (HttpsAddress(**address), https_rules)
        if "s3" in content:
            places["s3"] = (S3Address(**content["s3"][0]), content["s3"][1])
        if "hub" in content:
            options = content["hub"][1]
            places["hub"] = (HubAddress(**content["hub"][0]), options | {"hosts": tuple(options["hosts"])})
        if "package" in content:
            places["package"] = PackageAddress(**content["package"])
        return cls(
            folder=content["folder"],
            wanted=Wanted(**wanted),
            have=content["have"],
            secrets=tuple(content["secrets"]),
            ca=content["ca"],
            **places,
        )


def struck_out(text: str, secrets: Iterable[str]) -> str:
    """Returns a text without the secrets in it."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text
