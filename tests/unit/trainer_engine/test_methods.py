"""Which weights move, and which layouts a model can take."""

import pytest

from services.trainer.engine.methods import can_share_beginnings, check_adapters
from services.trainer.engine.training_task import TrainingFault
from tests.support.tiny_networks import FAMILIES, network
from tuneforge.specs.spec import LoraMethod


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rank_up_to_the_smallest_side_is_taken(family: str) -> None:
    """The largest rank fits, one more does not; GPT-2's transposed layers are measured alike."""
    smallest = 32 if family == "gpt2" else 16
    check_adapters(network(family), LoraMethod(rank=smallest))
    with pytest.raises(TrainingFault, match=f"at most {smallest}"):
        check_adapters(network(family), LoraMethod(rank=smallest + 1))


def test_only_chosen_layers_bound_the_rank() -> None:
    """A rank above a layer that gets no adapter is fine."""
    check_adapters(network("llama"), LoraMethod(rank=32, target_modules=("q_proj", "o_proj")))


def test_models_with_masks_of_their_own_share_no_beginnings() -> None:
    """A window shorter than a row, or capped attention, would be lost under a mask of ours."""
    model = network("llama")
    assert can_share_beginnings(model, 100)
    model.config.sliding_window = 64
    assert can_share_beginnings(model, 64)
    assert not can_share_beginnings(model, 65)
    model.config.sliding_window = None
    model.config.attn_logit_softcapping = 50.0
    assert not can_share_beginnings(model, 10)
