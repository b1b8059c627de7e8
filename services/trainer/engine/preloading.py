"""What the fork server imports before it forks, so that a worker imports nothing."""

import importlib

_HEAVY_MODULES = (
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.cache_utils",
    "peft.tuners.lora.model",
    "peft.tuners.lora.bnb",
    "bitsandbytes",
    "tokenizers",
    "safetensors.torch",
    "tuneforge.data._environment",
    "torch.optim.adamw",
    "torch.utils.checkpoint",
    "numpy",
)
"""What transformers and PEFT import at the first use of a real class. Importing computes nothing."""


def preload() -> None:
    """Imports all that a run needs, so that a forked child imports nothing.

    Nothing is computed: a process that ran one parallel region with several threads cannot be forked safely.
    """
    for module in _HEAVY_MODULES:
        importlib.import_module(module)
