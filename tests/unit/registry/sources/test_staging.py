"""What an import leaves on the disk."""

import os
import time
from pathlib import Path

from services.registry.sources.parts import Part, allowance_of
from services.registry.sources.staging import Staging, Stored, discard, note_stored, read_journal
from services.registry.sources.wanted import Entry


def test_what_is_forgotten_is_swept_and_what_is_young_stays(tmp_path: Path) -> None:
    """By the newest byte of an import."""
    staging = Staging(tmp_path / "imports")
    staging.prepare(kept_s=60)
    old, young = staging.place("default", "old"), staging.place("default", "young")
    for place in (old, young):
        place.mkdir(parents=True)
        (place / "a.part").write_bytes(b"x")
    long_ago = time.time() - 3600
    os.utime(old / "a.part", (long_ago, long_ago))
    os.utime(old, (long_ago, long_ago))
    assert staging.prepare(kept_s=60) == 1
    assert not old.exists()
    assert young.exists()
    discard(young)
    assert not young.exists()


def test_the_same_question_has_the_same_place_and_another_has_another(tmp_path: Path) -> None:
    """No part of the address is in its name."""
    staging = Staging(tmp_path)
    assert staging.place("p", "https://x/y?secret", "") == staging.place("p", "https://x/y?secret", "")
    assert staging.place("p", "a", "bc") != staging.place("p", "ab", "c")
    assert "secret" not in str(staging.place("p", "https://x/y?secret", ""))


def test_a_journal_that_a_crash_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    """What stands whole counts, and its parts are gone."""
    for number in range(2):
        part = tmp_path / f"{number}.part"
        part.write_bytes(b"x")
        note_stored(tmp_path, Stored(f"{number}.csv", "tag", "0" * 64, 1), part)
        assert not part.exists()
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"path": "2.c')
    assert list(read_journal(tmp_path)) == ["0.csv", "1.csv"]
    assert read_journal(tmp_path / "absent") == {}


def test_a_part_is_gone_on_with_only_while_the_file_is_the_same(tmp_path: Path) -> None:
    """Another tag, no tag, or more bytes than the file has: from the beginning."""

    def held(tag: str, size_bytes: int = 10) -> int:
        entry = Entry(path="a.csv", key="a", tag=tag, size_bytes=size_bytes)
        return Part(tmp_path, entry, allowance_of(0)).held_bytes

    part = Part(tmp_path, Entry(path="a.csv", key="a", tag="one"), allowance_of(0))
    part.fill([b"12345"], 0, lambda _: None)
    assert (held("one"), held("two"), held("")) == (5, 0, 0)
    assert held("one", size_bytes=3) == 0
    whole = part.fill([b"67890"], 5, lambda _: None)
    assert (whole.size_bytes, part.path.read_bytes()) == (10, b"1234567890")
