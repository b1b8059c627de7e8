"""The child process of one import: reads a job from stdin, fetches, and tells each step as a line of JSON on stdout.

It is the only process that speaks to places outside. It gets the credentials of this one import through the pipe, knows
no database and no caller, has limits on memory, file size and time, and ends when the registry does.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.registry.child_limits import set_limits
from services.registry.sources import protocol
from services.registry.sources.addresses import AddressRefused
from services.registry.sources.faults import NO_SPACE, Code, SourceFault
from services.registry.sources.parts import Part, allowance_of
from services.registry.sources.places import Place
from services.registry.sources.places.tls import trusting
from services.registry.sources.protocol import Job
from services.registry.sources.selection import ALL_SPLITS, choose
from services.registry.sources.wanted import Entry, Wanted
from tuneforge.data.formats.card import CARD, LARGEST_CARD_BYTES, CardFault, choose_files

_MEMORY_BYTES = 4 * 1024**3
"""Address space: libraries and threads take one; nothing that is fetched is ever held in memory."""
_TELL_EVERY_S = 0.2


class _Teller:
    """Writes lines, and no secret in any of them."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets

    def say(self, **step: Any) -> None:
        clean = {
            key: protocol.struck_out(value, self._secrets) if isinstance(value, str) else value
            for key, value in step.items()
        }
        sys.stdout.write(json.dumps(clean) + "\n")
        sys.stdout.flush()


def main() -> int:
    """Does the job; returns 0 when it was told to the end, well or not."""
    job = Job.from_json(sys.stdin.read())
    _limit(job)
    teller = _Teller(job.secrets)
    try:
        _fetch(job, teller)
    except SourceFault as fault:
        teller.say(step="fault", code=fault.code, message=fault.message)
    except AddressRefused as refusal:
        teller.say(step="fault", code=Code.NOT_ALLOWED, message=str(refusal))
    except OSError as error:
        if error.errno in NO_SPACE:
            teller.say(step="full")
        else:
            kind = f"{type(error).__name__} {error.errno or ''}".strip()
            teller.say(step="fault", code=Code.UNAVAILABLE, message=f"the place broke off: {kind}")
    return 0


def _fetch(job: Job, teller: _Teller) -> None:
    place = _place(job)
    listing = place.look()
    entries = choose(*_of_config(place, job, listing.entries))
    teller.say(
        step="listed",
        revision=listing.revision[:200],
        files=[{"path": entry.path, "size_bytes": entry.size_bytes} for entry in entries],
    )
    allowance = allowance_of(job.wanted.largest_bytes)
    for entry in entries:
        if entry.tag and job.have.get(entry.path) == entry.tag:
            allowance.take(entry.size_bytes)
            teller.say(step="kept", path=entry.path)
            continue
        told = 0.0

        def tell(done: int, path: str = entry.path) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= _TELL_EVERY_S:
                told = now
                teller.say(step="bytes", path=path, done=done)

        arrived = place.fetch(Part(Path(job.folder), entry, allowance), tell)
        teller.say(
            step="file",
            path=entry.path,
            place=arrived.place.name,
            sha256=arrived.sha256,
            size_bytes=arrived.size_bytes,
            tag=entry.tag,
        )
    teller.say(step="done")


def _of_config(place: Place, job: Job, entries: Sequence[Entry]) -> tuple[Sequence[Entry], Wanted]:
    """Returns the files of the configuration that is wanted, where a data set's card names some, and what to take."""
    wanted = job.wanted
    card = next((entry for entry in entries if entry.path == CARD and entry.size_bytes <= LARGEST_CARD_BYTES), None)
    if wanted.kind != "dataset" or (card is None and not wanted.config):
        return entries, wanted
    text = ""
    if card is not None:
        arrived = place.fetch(Part(Path(job.folder), card, allowance_of(LARGEST_CARD_BYTES)), lambda _: None)
        text = arrived.place.read_text(encoding="utf-8", errors="replace")
    try:
        files = choose_files(text, [entry.path for entry in entries], config=wanted.config, split=wanted.split)
    except CardFault as fault:
        raise SourceFault(Code.NOT_FOUND, str(fault)) from None
    if files is None:
        return entries, wanted
    return [entry for entry in entries if entry.path in files], replace(wanted, split=ALL_SPLITS)


def _place(job: Job) -> Place:
    """Returns the place of a job; each kind imports its own client only."""
    if job.https is not None:
        from services.registry.sources.places.https import HttpsPlace

        return HttpsPlace(*job.https, trusting(job.ca))
    if job.s3 is not None:
        from services.registry.sources.places.s3 import S3Place

        address, options = job.s3
        return S3Place(address, context=trusting(job.ca), **options)
    if job.hub is not None:
        from services.registry.sources.places.hub import HubPlace

        hub_address, hub_options = job.hub
        return HubPlace(hub_address, kind=job.wanted.kind, context=trusting(job.ca), **hub_options)
    if job.package is not None:
        from services.registry.sources.places.package import PackagePlace

        return PackagePlace(job.package)
    raise ValueError("the job names no place")


def _limit(job: Job) -> None:
    largest = job.wanted.largest_bytes
    set_limits(memory_bytes=_MEMORY_BYTES, open_files=256, file_bytes=largest + 1024 * 1024 if largest else None)


if __name__ == "__main__":
    sys.exit(main())
