"""Scores row by row, and the comparison of a version with the champion on them, over a real socket."""

import asyncio
import math
import random
from pathlib import Path

import grpc

from tests.support.event_loop import on_loop
from tests.support.gated_registry import ALIAS, MODEL, ROWS, gated_registry, row_id, version
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, fields_of, refused
from tuneforge.errors import Reason, from_rpc_error
from tuneforge.v1 import aliases_pb2
from tuneforge.v1 import gates_pb2 as pb

pytestmark = EACH_DATABASE


def scores(seed: int, share: float, rows: int = ROWS) -> list[float]:
    """Returns which rows a version answers right: so large a share of them, at random."""
    draw = random.Random(seed)
    return [float(draw.random() < share) for _ in range(rows)]


def comparison(dataset: str, **fields: object) -> pb.Gate:
    """Returns a gate that compares with the champion."""
    values: dict[str, object] = {"metric": "accuracy", "dataset": dataset, "resamples": 400, "seed": 11, **fields}
    return pb.Gate(id="better", comparison=pb.ComparisonGate(**values))  # type: ignore[arg-type]


@on_loop
async def test_a_better_version_replaces_the_champion_and_an_equal_one_does_not(tmp_path: Path) -> None:
    """The bound of the paired difference decides, with its figures in the report; the same question, the same bound."""
    async with gated_registry(tmp_path, {}, {}) as gated:
        await gated.set_policy(comparison(gated.dataset))
        await gated.record(1, scores(1, 0.5))
        await gated.record(2, scores(2, 0.5))
        await gated.record(3, scores(3, 0.9))
        assert (await gated.move(1)).version == version(1), "without a champion there is nothing to compare with"
        error = await refused(gated.move(2), Reason.GATE_FAILED)
        assert fields_of(error) == ["quality/better"]
        assert float(error.metadata["margin"]) <= 0
        await gated.move(3)
        log = await gated.stub.ListAliasChanges(aliases_pb2.ListAliasChangesRequest(parent=ALIAS))
        [found] = log.changes[0].gates.results
        evidence = found.comparison
        assert (evidence.champion, evidence.rows, evidence.seed, evidence.resamples) == (version(1), ROWS, 11, 400)
        assert evidence.effect == sum(a - b for a, b in zip(scores(3, 0.9), scores(1, 0.5), strict=True)) / ROWS
        assert 0 < evidence.lower_bound < evidence.effect
        assert found.margin == evidence.lower_bound
        first, second = await asyncio.gather(gated.check(2), gated.check(2))
        assert first.results == second.results
        assert first.champion == version(3)


@on_loop
async def test_a_deletion_frees_no_alias_of_its_comparison(tmp_path: Path) -> None:
    """After the alias was deleted, the version that it named last is still the one to beat."""
    async with gated_registry(tmp_path, {}) as gated:
        await gated.set_policy(comparison(gated.dataset))
        await gated.record(1, scores(1, 0.9))
        await gated.record(2, scores(2, 0.3))
        await gated.move(1)
        await gated.stub.DeleteAlias(aliases_pb2.DeleteAliasRequest(name=ALIAS))
        await refused(gated.move(2), Reason.GATE_FAILED)


@on_loop
async def test_a_slice_that_loses_refuses_the_whole(tmp_path: Path) -> None:
    """A version that is better over all, but worse on a guarded slice, is refused by that slice."""
    async with gated_registry(tmp_path, {}) as gated:
        short = pb.EvaluationSlice(slice="short", positions=range(15))
        guard = pb.SliceGuard(slice="short", tolerance=0.1)
        await gated.record(1, [1.0] * 15 + [0.0] * 45, slices=[short])
        await gated.record(2, [0.0] * 8 + [1.0] * 52, slices=[short])
        await gated.move(1)
        await gated.set_policy(comparison(gated.dataset))
        assert (await gated.check(2)).is_passed
        await gated.set_policy(comparison(gated.dataset, slices=[guard]))
        error = await refused(gated.move(2), Reason.GATE_FAILED)
        assert "'short' (15 rows)" in error.message
        [part] = (await gated.check(2)).results[0].comparison.slices
        assert (part.rows, part.is_passed, part.effect) == (15, False, -8 / 15)
        assert math.isclose(part.tolerance, 0.1)


@on_loop
async def test_a_move_rests_on_what_holds_when_it_is_made(tmp_path: Path) -> None:
    """While moves are examined the gates change: no move is committed that the gates of that moment refuse."""
    async with gated_registry(tmp_path, {"accuracy": 0.9}, {"accuracy": 0.7}) as gated:
        floor = pb.MetricGate(metric="accuracy", comparator=pb.COMPARATOR_AT_LEAST, threshold=0.8)
        low = pb.MetricGate(metric="accuracy", comparator=pb.COMPARATOR_AT_LEAST, threshold=0.6)

        async def change() -> None:
            for number in range(12):
                await gated.set_policy(pb.Gate(id="floor", metric=low if number % 2 else floor))

        async def move(numbers: list[int]) -> list[str]:
            outcomes = []
            for number in numbers:
                try:
                    await gated.move(number)
                except grpc.RpcError as error:
                    outcomes.append(from_rpc_error(error).reason)
            return outcomes

        _, *refusals = await asyncio.gather(change(), move([2, 3] * 6), move([3, 2] * 6))
        assert {reason for each in refusals for reason in each} <= {Reason.GATE_FAILED, Reason.ETAG_MISMATCH}
        moves = await gated.stub.ListAliasChanges(aliases_pb2.ListAliasChangesRequest(parent=ALIAS))
        asked = pb.ListGatePolicyChangesRequest(parent=f"{MODEL}/policies/quality")
        policies = [each.policy for each in (await gated.stub.ListGatePolicyChanges(asked)).changes]
        assert len(moves.changes) > 1
        for made in moves.changes:
            [found] = made.gates.results or [None]
            before = [each for each in policies if each.update_time.ToNanoseconds() <= made.time.ToNanoseconds()]
            if before:
                assert found is not None
                assert found.revision == before[0].revision, "the revision that was in force when it was committed"
                assert found.is_passed
            else:
                assert found is None


@on_loop
async def test_an_evaluation_is_kept_once_and_for_good(tmp_path: Path) -> None:
    """The same scores again are the same evaluation; others are ALREADY_EXISTS; the list has figures, not scores."""
    async with gated_registry(tmp_path) as gated:
        kept = await gated.record(1, [0.0, 1.0, 1.0, 0.0], slices=[pb.EvaluationSlice(slice="odd", positions=[1, 3])])
        assert (kept.rows, kept.mean, list(kept.slices), kept.creator) == (4, 0.5, ["odd"], "local")
        again = await gated.record(1, [0.0, 1.0, 1.0, 0.0], slices=[pb.EvaluationSlice(slice="odd", positions=[3, 1])])
        assert again == kept
        error = await refused(gated.record(1, [0.0, 1.0, 1.0, 1.0]), Reason.ALREADY_EXISTS)
        assert error.metadata["metric"] == "accuracy"
        other = await gated.record(1, [1.0], metric="exact_match")
        listed = await gated.stub.ListEvaluations(pb.ListEvaluationsRequest(parent=version(1), page_size=1))
        rest = pb.ListEvaluationsRequest(parent=version(1), page_size=1, page_token=listed.next_page_token)
        assert [*listed.evaluations, *(await gated.stub.ListEvaluations(rest)).evaluations] == [kept, other]


@on_loop
async def test_all_that_is_wrong_with_scores_is_told_at_once(tmp_path: Path) -> None:
    """Row ids, scores, slices and names; versions and data that are not there; more rows than the data has."""
    async with gated_registry(tmp_path) as gated:
        slices = [pb.EvaluationSlice(slice="a", positions=[0, 0]), pb.EvaluationSlice(slice="a", positions=[9])]
        error = await refused(
            gated.record(1, [1.0, math.inf], row_ids=[row_id(1), "x", row_id(1)], metric="", slices=slices),
            Reason.INVALID_FIELD,
        )
        assert fields_of(error) == [
            "metric",
            "scores",
            "row_ids[1]",
            "row_ids",
            "scores[1]",
            "slices[0].positions",
            "slices[1].slice",
            "slices[1].positions",
        ]
        scores_of_nothing = pb.RecordEvaluationRequest(parent=version(1), dataset=gated.dataset, metric="m")
        error = await refused(gated.stub.RecordEvaluation(scores_of_nothing), Reason.INVALID_FIELD)
        assert fields_of(error) == ["row_ids"]
        many = await refused(gated.record(1, [1.0] * (ROWS + 1)), Reason.INVALID_FIELD)
        assert fields_of(many) == ["row_ids"]
        await refused(gated.record(9, [1.0]), Reason.NOT_FOUND)
        await refused(gated.record(1, [1.0], dataset=f"{PROJECT}/datasets/test/versions/9"), Reason.NOT_FOUND)
