"""Random histories of uploads, versions, deletions, lost files and collections, held against a plain model of them."""

import asyncio
import hashlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.grpckit.errors import Reason, ServiceError
from services.registry.blobs.home import new_place
from services.registry.blobs.store import add_uses, remove_uses
from services.registry.library import Library, now_us
from services.registry.retention.collector import Collector, CollectorSettings
from tests.support.library import open_library, store
from tuneforge.manifest import Manifest, ManifestFile

CONTENTS = [bytes([number]) * (number + 1) for number in range(4)]
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
PROJECTS = ("a", "b")

UPLOAD = st.tuples(st.just("upload"), st.sampled_from(PROJECTS), st.integers(0, 3))
MAKE = st.tuples(st.just("make"), st.sampled_from(PROJECTS), st.sets(st.integers(0, 3), min_size=1, max_size=3))
DROP = st.tuples(st.just("drop"), st.integers(0, 20), st.none())
LOSE = st.tuples(st.just("lose"), st.integers(0, 3), st.none())
COLLECT = st.tuples(st.just("collect"), st.booleans(), st.none())


class World:
    """A library and what must be true of it."""

    def __init__(self, library: Library, data: Path) -> None:
        self.library = library
        self.data = data
        self.collector = Collector(library, CollectorSettings(grace_s=-1, upload_kept_s=3600, every_s=0))
        self.visible: set[tuple[str, int]] = set()
        self.versions: dict[str, tuple[str, frozenset[int]]] = {}
        self.num_versions = 0

    async def upload(self, project: str, number: int) -> None:
        """Stores a content in a project."""
        await store(self.library, CONTENTS[number], project=project)
        self.visible.add((project, number))

    async def make(self, project: str, numbers: set[int]) -> None:
        """Makes a version of blobs that are there; one of others is refused and changes nothing."""
        self.num_versions += 1
        name = f"projects/{project}/models/m/versions/{self.num_versions}"
        files = Manifest.of(ManifestFile(f"{number}", DIGESTS[number], number + 1) for number in numbers)
        is_there = {(project, number) for number in numbers} <= self.visible
        making = self.library.database.write(lambda c: add_uses(c, name, files, time_us=now_us()))
        if not is_there:
            with pytest.raises(ServiceError) as caught:
                await making
            assert caught.value.reason is Reason.BLOB_MISSING
            return
        await making
        self.versions[name] = (project, frozenset(numbers))

    async def drop(self, which: int, _nothing: None) -> None:
        """Deletes one of the versions, if there is any."""
        if self.versions:
            name = sorted(self.versions)[which % len(self.versions)]
            await self.library.database.write(lambda c: remove_uses(c, name))
            del self.versions[name]

    async def lose(self, number: int, _nothing: None) -> None:
        """Leaves a file that no row names, as a killed process does."""
        path = self.data / "blobs" / new_place(DIGESTS[number])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[number])

    async def collect(self, validate_only: bool, _nothing: None) -> None:
        """Collects, or only asks what would go; afterwards exactly what versions need is there, byte for byte."""
        told = await self.collector.collect(validate_only=True)
        if validate_only:
            return
        freed = await self.collector.collect()
        assert (freed.blobs, freed.contents, freed.freed_bytes) == (told.blobs, told.contents, told.freed_bytes)
        self.visible = {(project, number) for project, numbers in self.versions.values() for number in numbers}
        stored = sorted(path.name.partition(".")[0] for path in (self.data / "blobs").glob("*/*"))
        assert stored == sorted({DIGESTS[number] for _, number in self.visible})
        for _, number in self.visible:
            manifest = Manifest.of([ManifestFile("file", DIGESTS[number], number + 1)])
            async with self.library.fetched(manifest) as folder:
                assert folder.paths["file"].read_bytes() == CONTENTS[number]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry: its migrations take longer than all the rest."""
    data = tmp_path_factory.mktemp("empty")
    with open_library(data):
        return data


@settings(max_examples=12, deadline=None)
@given(history=st.lists(st.one_of(UPLOAD, UPLOAD, MAKE, MAKE, DROP, LOSE, COLLECT), max_size=20))
def test_after_any_history_exactly_what_is_needed_is_there(
    empty: Path, history: list[tuple[str, object, object]]
) -> None:
    """Each collection tells beforehand what it frees, frees that, and leaves every byte that a version needs."""
    data = Path(tempfile.mkdtemp())
    shutil.copytree(empty, data, dirs_exist_ok=True)
    try:
        with open_library(data) as library:

            async def live() -> None:
                world = World(library, data)
                for act, first, second in [*history, ("collect", False, None)]:
                    await getattr(world, act)(first, second)

            before = REGISTRY.get_sample_value("tuneforge_registry_collections_total") or 0
            asyncio.run(live())
            assert (REGISTRY.get_sample_value("tuneforge_registry_collections_total") or 0) > before
    finally:
        shutil.rmtree(data)
