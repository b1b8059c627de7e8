"""What runs leave is loaded by plain transformers and peft, without anything of ours, and computes the same."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.artifact_loads import CLOSE, Load, loads, specs

KINDS = ("adapter on adapter", *specs())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Load]]:
    """Every kind of result, trained here and loaded elsewhere."""
    threads = torch.get_num_threads()
    yield {load.name: load for load in loads(tmp_path_factory.mktemp("loads"))}
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_computes_elsewhere_what_the_engine_computed(kind: str, found: dict[str, Load]) -> None:
    """The logits are those of the engine after its last step; the base alone would be far off."""
    load = found[kind]
    assert load.difference <= CLOSE
    assert load.learned > 100 * CLOSE
    assert load.same_tokenizer


def test_no_kind_is_left_out(found: dict[str, Load]) -> None:
    """Each kind that is trained is loaded."""
    assert set(found) == set(KINDS)
