"""From a model that writes to one that judges: the vocabulary's head gives way to one with a single output."""

import copy
from collections.abc import Collection
from typing import Any, Final

import torch
import transformers

from tuneforge.architectures import reward_class

HEAD: Final = "score"
"""Name of the head in every class for sequence classification that is made here."""
_QUANTIZATION_MARKS: Final = ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized")


def with_reward_head(model: Any, seed: int, end_tokens: Collection[int]) -> Any:
    """Returns a model for sequence classification around the decoder of a causal language model, without a copy.

    The head is drawn from a normal distribution of variance 1 / (width + 1) (Stiennon et al., arXiv 2009.01325, section
    B of its appendix), so that the rewards of the first step are of order one.

    Args:
        model: A supported causal language model of transformers, whole or quantised.
        seed: Of the head; the global random state is left as it was.
        end_tokens: Tokens that a text may end with. transformers reads a reward at the last token that is no filling,
            so that a filling token among these is taken out of the configuration.
    """
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    if config.pad_token_id in end_tokens:
        config.pad_token_id = None
    with torch.device("meta"):
        judge = getattr(transformers, reward_class(type(model).__name__))(config)
    setattr(judge, judge.base_model_prefix, model.base_model)
    width = judge.score.in_features
    generator = torch.Generator().manual_seed(seed % 2**63)
    weight = torch.randn((1, width), generator=generator) / (width + 1) ** 0.5
    judge.score = torch.nn.Linear(width, 1, bias=False, device="meta").to_empty(device=model.device)
    judge.score.weight.data.copy_(weight)
    for mark in _QUANTIZATION_MARKS:
        if hasattr(model, mark):
            setattr(judge, mark, getattr(model, mark))
    return judge.requires_grad_(False).eval()
