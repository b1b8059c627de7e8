"""Lineage and revocation over the wire: what was made from what, what must move, and what is refused from then on."""

from pathlib import Path

from tests.contract.test_registry_publish import JOB, RESULT, publication
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, refused, running_registry
from tuneforge.errors import Reason
from tuneforge.v1 import aliases_pb2, datasets_pb2, models_pb2
from tuneforge.v1 import lineage_pb2 as pb

pytestmark = EACH_DATABASE

DATA = f"{PROJECT}/datasets/greetings/versions/1"
BASE = f"{PROJECT}/models/base/versions/1"
MADE = f"{RESULT}/versions/1"
ALIAS = f"{RESULT}/aliases/production"


async def history(registry: RunningRegistry, folder: Path) -> None:
    """Publishes an adapter on a base and rows, and points an alias to it."""
    await registry.stub.PublishVersion(await publication(registry, folder))
    await registry.stub.SetAlias(aliases_pb2.SetAliasRequest(name=ALIAS, version=MADE))


async def ask(registry: RunningRegistry, name: str, **fields: object) -> pb.QueryLineageResponse:
    """Asks for the descendants of a thing, or what the fields say."""
    request = {"direction": pb.LINEAGE_DIRECTION_DESCENDANTS} | fields
    return await registry.stub.QueryLineage(pb.QueryLineageRequest(name=name, **request))  # type: ignore[arg-type]


@on_loop
async def test_lineage_is_a_query(tmp_path: Path) -> None:
    """Both ways, by kind and role, by pages, with states, digests and edges; a path from the alias to the data."""
    async with running_registry(tmp_path / "data") as registry:
        await history(registry, tmp_path)
        down = await ask(registry, DATA)
        assert [node.name for node in down.nodes] == [DATA, JOB, MADE, ALIAS]
        assert [node.depth for node in down.nodes] == [0, 1, 1, 2]
        assert {(edge.child, edge.parent, edge.role) for edge in down.edges} == {
            (JOB, DATA, pb.LINEAGE_ROLE_DATASET),
            (MADE, DATA, pb.LINEAGE_ROLE_DATASET),
            (MADE, JOB, pb.LINEAGE_ROLE_JOB),
            (ALIAS, MADE, pb.LINEAGE_ROLE_ALIAS),
        }
        version = await registry.stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=MADE))
        (made,) = [node for node in down.nodes if node.name == MADE]
        assert (made.kind, made.state) == (pb.LINEAGE_KIND_MODEL_VERSION, pb.LINEAGE_STATE_LIVE)
        assert (made.digest, made.create_time) == (version.manifest.digest, version.create_time)

        up = await ask(registry, ALIAS, direction=pb.LINEAGE_DIRECTION_ANCESTORS)
        assert {node.name for node in up.nodes} == {ALIAS, MADE, JOB, BASE, DATA}
        models = await ask(registry, DATA, kinds=[pb.LINEAGE_KIND_MODEL_VERSION])
        assert [node.name for node in models.nodes] == [MADE]
        bases = await ask(registry, MADE, direction=1, roles=[pb.LINEAGE_ROLE_BASE])
        assert [node.name for node in bases.nodes] == [MADE, BASE]
        assert [node.name for node in (await ask(registry, DATA, max_depth=1)).nodes] == [DATA, JOB, MADE]

        first = await ask(registry, DATA, page_size=3)
        rest = await ask(registry, DATA, page_size=3, page_token=first.next_page_token)
        assert [*first.nodes, *rest.nodes] == list(down.nodes)
        assert not rest.next_page_token
        found = await registry.stub.FindLineagePath(pb.FindLineagePathRequest(name=DATA, other=ALIAS))
        assert [node.name for node in found.nodes] == [ALIAS, MADE, DATA]
        assert [edge.role for edge in found.edges] == [pb.LINEAGE_ROLE_ALIAS, pb.LINEAGE_ROLE_DATASET]
        none = await registry.stub.FindLineagePath(pb.FindLineagePathRequest(name=DATA, other=BASE))
        assert not none.nodes


@on_loop
async def test_wrong_questions_are_refused(tmp_path: Path) -> None:
    """Unknown things, roles, tokens and reasons are named."""
    async with running_registry(tmp_path / "data") as registry:
        await history(registry, tmp_path)
        await refused(ask(registry, f"{PROJECT}/models/none/versions/9"), Reason.NOT_FOUND)
        error = await refused(ask(registry, DATA, roles=[99], kinds=[0]), Reason.INVALID_FIELD)
        assert fields_of(error) == ["roles", "kinds"]
        token = (await ask(registry, DATA, page_size=1)).next_page_token
        await refused(ask(registry, BASE, page_size=1, page_token=token), Reason.INVALID_PAGE_TOKEN)
        unknown = pb.RevokeDatasetRequest(name=f"{PROJECT}/datasets/none", reason="x")
        await refused(registry.stub.RevokeDataset(unknown), Reason.NOT_FOUND)
        silent = registry.stub.RevokeDataset(pb.RevokeDatasetRequest(name=DATA))
        assert fields_of(await refused(silent, Reason.INVALID_FIELD)) == ["reason"]
        early = pb.UnrevokeDatasetRequest(name=DATA, reason="x")
        await refused(registry.stub.UnrevokeDataset(early), Reason.WRONG_STATE)


@on_loop
async def test_revoked_data_taints_what_was_made_from_it(tmp_path: Path) -> None:
    """A trial marks nothing; a revocation says what must move, shows everywhere and blocks; it can be taken back."""
    async with running_registry(tmp_path / "data") as registry:
        await history(registry, tmp_path)
        imported = await registry.imported(await registry.model("tiny"), tmp_path / "base")
        request = pb.RevokeDatasetRequest(name=DATA.partition("/versions/")[0], reason="no license", validate_only=True)
        trial = await registry.stub.RevokeDataset(request)
        assert dict(trial.num_downstream) == {"JOB": 1, "MODEL_VERSION": 1, "ALIAS": 1}
        assert [(alias.name, alias.version, alias.suggestion) for alias in trial.aliases] == [(ALIAS, MADE, "")]
        assert not trial.revocation.HasField("time")
        log = pb.ListRevocationsRequest(parent=PROJECT)
        assert not (await registry.stub.ListRevocations(log)).changes

        request.validate_only = False
        done = await registry.stub.RevokeDataset(request)
        assert (done.revocation.actor, done.revocation.reason) == ("local", "no license")
        assert done.aliases == trial.aliases
        listed = await registry.stub.ListAffectedAliases(pb.ListAffectedAliasesRequest(name=DATA))
        assert listed.aliases == trial.aliases
        data = await registry.stub.GetDatasetVersion(datasets_pb2.GetDatasetVersionRequest(name=DATA))
        assert list(data.revocations) == [done.revocation]
        version = await registry.stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=ALIAS))
        assert list(version.taints) == [done.revocation]
        base = await registry.stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=imported.name))
        assert not base.taints
        states = {node.name: node.state for node in (await ask(registry, DATA)).nodes}
        assert states == {
            DATA: pb.LINEAGE_STATE_REVOKED,
            JOB: pb.LINEAGE_STATE_TAINTED,
            MADE: pb.LINEAGE_STATE_TAINTED,
            ALIAS: pb.LINEAGE_STATE_TAINTED,
        }
        move = aliases_pb2.SetAliasRequest(name=f"{RESULT}/aliases/staging", version=MADE)
        error = await refused(registry.stub.SetAlias(move), Reason.REVOKED)
        assert error.metadata["reason"] == "no license"
        for word in ("greetings", "local", "no license"):
            assert word in error.message

        again = await registry.stub.RevokeDataset(pb.RevokeDatasetRequest(name=request.name, reason="other"))
        assert again.revocation == done.revocation
        back = await registry.stub.UnrevokeDataset(pb.UnrevokeDatasetRequest(name=request.name, reason="bought"))
        assert not back.is_revoked
        await registry.stub.SetAlias(move)
        changes = (await registry.stub.ListRevocations(log)).changes
        assert [(change.is_revoked, change.reason) for change in changes] == [(False, "bought"), (True, "no license")]


@on_loop
async def test_what_is_published_after_a_revocation_is_tainted(tmp_path: Path) -> None:
    """A run that was on its way keeps its result, which is tainted from the start."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        await registry.stub.RevokeDataset(pb.RevokeDatasetRequest(name=DATA, reason="private"))
        made = await registry.stub.PublishVersion(request)
        assert [taint.name for taint in made.taints] == [DATA]
