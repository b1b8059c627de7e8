"""Reference cases of lineage: 001-26, 001-28, 002-09 (what the registry keeps of them; jobs are the scheduler's)."""

from pathlib import Path

import pytest

from tests.contract.test_registry_publish import publication, ref
from tests.support.event_loop import on_loop
from tests.support.registry import PROJECT, running_registry
from tuneforge.v1 import lineage_pb2 as pb
from tuneforge.v1 import models_pb2


@pytest.mark.parametrize("case", ["001-26", "001-28"])
def test_a_chain_of_three_is_walkable(tmp_path: Path, case: str) -> None:
    """A model tuned from a tuned model has both ancestors, in order, down to the one that was there first."""

    @on_loop
    async def run() -> None:
        async with running_registry(tmp_path / "data") as registry:
            first = await registry.stub.PublishVersion(await publication(registry, tmp_path))
            again = models_pb2.PublishVersionRequest(
                parent=first.name.partition("/versions/")[0],
                manifest=first.manifest,
                kind=first.kind,
                lineage=models_pb2.Lineage(base=ref(first), job=f"{PROJECT}/jobs/further"),
            )
            second = await registry.stub.PublishVersion(again)
            request = pb.QueryLineageRequest(name=second.name, roles=[pb.LINEAGE_ROLE_BASE])
            if case == "001-28":  # to the job at the chain's beginning
                request = pb.QueryLineageRequest(
                    name=second.name, roles=[pb.LINEAGE_ROLE_BASE, pb.LINEAGE_ROLE_JOB], kinds=[pb.LINEAGE_KIND_JOB]
                )
            names = [node.name for node in (await registry.stub.QueryLineage(request)).nodes]
            if case == "001-26":
                assert names == [second.name, first.name, first.lineage.base.version]
            else:
                assert names == [again.lineage.job, first.lineage.job]

    run()


@pytest.mark.parametrize("case", ["002-09"])
def test_lineage_names_base_and_data(tmp_path: Path, case: str) -> None:
    """A tuned model says which base it began from and which data it learned from."""

    @on_loop
    async def run() -> None:
        async with running_registry(tmp_path / "data") as registry:
            made = await registry.stub.PublishVersion(await publication(registry, tmp_path))
            request = pb.QueryLineageRequest(
                name=made.name, max_depth=1, roles=[pb.LINEAGE_ROLE_BASE, pb.LINEAGE_ROLE_DATASET]
            )
            edges = {(edge.role, edge.parent) for edge in (await registry.stub.QueryLineage(request)).edges}
            base, data = made.lineage.base.version, made.lineage.dataset.version
            assert {(pb.LINEAGE_ROLE_BASE, base), (pb.LINEAGE_ROLE_DATASET, data)} == edges, case

    run()
