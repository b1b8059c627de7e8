"""How many calls may run at once: unary calls and streams are counted apart, so watches never starve a unary call.

gRPC's own `maximum_concurrent_rpcs` counts both together, and `max_concurrent_streams` makes a client wait in silence;
a refusal with `RetryInfo` tells it what is going on.
"""

from collections import Counter
from dataclasses import dataclass, field

from services.grpckit.errors import Reason, ServiceError

_MAX_PROBES = 256


@dataclass(slots=True)
class Limits:
    """Counts the running calls of one server; used by its event loop only."""

    max_unary: int
    """Unary calls that may run at once."""
    max_streams: int
    """Streams that may be open at once."""
    max_streams_per_principal: int
    """Streams that one principal may have open."""
    _unary: int = 0
    _streams: int = 0
    _probes: int = 0
    _by_principal: Counter[str] = field(default_factory=Counter)

    def enter_unary(self) -> None:
        """Counts a unary call in.

        Raises:
            ServiceError: TOO_MANY_CALLS.
        """
        if self._unary >= self.max_unary:
            raise _too_many("unary calls", self.max_unary)
        self._unary += 1

    def leave_unary(self) -> None:
        """Counts a unary call out."""
        self._unary -= 1

    def enter_stream(self, principal: str) -> None:
        """Counts a stream of a principal in.

        Raises:
            ServiceError: TOO_MANY_CALLS.
        """
        if self._streams >= self.max_streams:
            raise _too_many("streams", self.max_streams)
        if self._by_principal[principal] >= self.max_streams_per_principal:
            raise _too_many(f"streams of {principal}", self.max_streams_per_principal)
        self._streams += 1
        self._by_principal[principal] += 1

    def leave_stream(self, principal: str) -> None:
        """Counts a stream of a principal out."""
        self._streams -= 1
        self._by_principal[principal] -= 1
        if not self._by_principal[principal]:
            del self._by_principal[principal]

    def enter_probe(self) -> None:
        """Counts a call of health or reflection in: these need no token, so they have a small limit of their own.

        Raises:
            ServiceError: TOO_MANY_CALLS.
        """
        if self._probes >= _MAX_PROBES:
            raise _too_many("health and reflection calls", _MAX_PROBES)
        self._probes += 1

    def leave_probe(self) -> None:
        """Counts a call of health or reflection out."""
        self._probes -= 1


def _too_many(what: str, limit: int) -> ServiceError:
    return ServiceError(
        Reason.TOO_MANY_CALLS,
        f"this process serves {limit} {what} at once, and all of these are taken",
        metadata={"limit": str(limit), "what": what},
    )
