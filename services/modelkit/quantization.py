"""Linear layers of the decoder blocks in 4 bits (QLoRA, Dettmers et al., arXiv 2305.14314, section 3) or in 8.

The weights are quantised here, layer by layer, from a model that is loaded already, so that merged adapters are in
them; the output head and the embeddings stay whole. Runs on the CPU too.
"""

import logging
from typing import Any

import torch

from services.modelkit.layers import decoder_linears
from tuneforge.specs.profile_documents import INT8_THRESHOLD
from tuneforge.specs.spec import Quantization


def quantize(model: Any, kind: Quantization, compute_dtype: torch.dtype, device: str | torch.device) -> Any:
    """Replaces the linear layers of the decoder blocks by quantised ones, in place.

    Args:
        model: a causal language model with frozen weights.
        kind: how the weights are kept.
        compute_dtype: number format of the matrix products.
        device: where the model goes.

    Returns:
        The model, on `device`, marked so that PEFT knows it as a 4-bit or an 8-bit one.
    """
    if kind is Quantization.INT8:
        return _quantize_int8(model, device)
    return quantize_nf4(model, compute_dtype, device, is_double=kind is Quantization.NF4)


def quantize_nf4(model: Any, compute_dtype: torch.dtype, device: str | torch.device, *, is_double: bool = True) -> Any:
    """Replaces the linear layers of the decoder blocks by 4-bit ones, in place.

    Args:
        model: a causal language model with frozen weights.
        compute_dtype: number format of the matrix products.
        device: where the model goes.
        is_double: whether the scales are quantised too.

    Returns:
        The model, on `device`, marked so that PEFT and `prepare_model_for_kbit_training` know it as a 4-bit one.
    """
    import bitsandbytes as bnb

    for parent, name, layer in decoder_linears(model):
        # GPT-2 keeps its weights transposed (`Conv1D`); in 4 bits all layers are (output, input).
        is_transposed = not isinstance(layer, torch.nn.Linear)
        weight = layer.weight.data.T.contiguous() if is_transposed else layer.weight.data
        quantized = bnb.nn.Linear4bit(
            weight.shape[1], weight.shape[0], bias=layer.bias is not None, compute_dtype=compute_dtype, device="meta"
        )
        quantized.weight = bnb.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=is_double, module=quantized
        )
        quantized.bias = layer.bias
        quantized.train(layer.training)
        setattr(parent, name, quantized.to(device))
    model.is_loaded_in_4bit = True
    model.is_quantized = True
    return model.to(device)


def _quantize_int8(model: Any, device: str | torch.device) -> Any:
    import bitsandbytes as bnb

    for parent, name, layer in decoder_linears(model):
        is_transposed = not isinstance(layer, torch.nn.Linear)
        weight = layer.weight.data.T.contiguous() if is_transposed else layer.weight.data
        quantized = bnb.nn.Linear8bitLt(
            weight.shape[1],
            weight.shape[0],
            bias=layer.bias is not None,
            has_fp16_weights=False,
            threshold=INT8_THRESHOLD,
            device="meta",
        )
        quantized.weight = bnb.nn.Int8Params(weight.float(), requires_grad=False, has_fp16_weights=False)
        quantized.bias = layer.bias
        quantized.train(layer.training)
        setattr(parent, name, quantized.to(device))
    # It says for every format that it casts the inputs to float16, which is how the method works.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    model.is_loaded_in_8bit = True
    model.is_quantized = True
    return model.to(device)


def nf4_rounded(weight: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Returns what is left of a weight once it was kept in 4 bits: what its products see, in float32.

    Args:
        weight: Output side first, contiguous, in the format in which the model was loaded.
        device: Where it is computed: rounding may differ between a CPU and a GPU.
    """
    import bitsandbytes as bnb

    kept = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True).to(device)
    # Else it would come in the weight's own format; a product takes it in the format of its other factor.
    kept.quant_state.dtype = torch.float32
    return torch.as_tensor(bnb.functional.dequantize_4bit(kept.data, kept.quant_state))
