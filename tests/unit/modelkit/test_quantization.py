"""Quantised layers compute, forwards and backwards, what their weights say, in every form and family."""

import copy

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit

from services.modelkit.adapters import attach_lora
from services.modelkit.layers import decoder_linears
from services.modelkit.quantization import quantize
from tests.support.tiny_networks import FAMILIES, network
from tuneforge.specs.spec import LoraMethod, Quantization


@pytest.mark.parametrize("kind", Quantization)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_and_its_gradient_are_those_of_what_it_keeps(family: str, kind: Quantization) -> None:
    """Outputs, and the gradient that is passed on below: of 4 bits exactly, of 8 within its rounding of the inputs."""
    whole = network(family)
    small = quantize(copy.deepcopy(whole), kind, torch.float32, "cpu")
    for (_, name, layer), (_, _, quantized) in zip(decoder_linears(whole), decoder_linears(small), strict=True):
        weight = layer.weight if isinstance(layer, torch.nn.Linear) else layer.weight.T
        allowed = 0.02
        if kind is not Quantization.INT8:
            weight, allowed = dequantize_4bit(quantized.weight.data, quantized.weight.quant_state), 1e-5
        inputs = torch.randn(2, 5, weight.shape[1]).requires_grad_()
        expected = inputs @ weight.T + (0 if layer.bias is None else layer.bias)
        found = quantized(inputs)
        assert (found - expected).norm() <= allowed * expected.norm(), name
        (gradient,) = torch.autograd.grad(found, inputs, torch.ones_like(found))
        wanted = torch.ones_like(found) @ weight
        assert (gradient - wanted).norm() <= allowed * wanted.norm(), name


def test_eight_bits_are_nearer_than_four() -> None:
    """Of the same model, the logits."""
    ids = torch.arange(20)[None]
    whole = network("llama")
    expected = whole(input_ids=ids).logits
    errors = {}
    for kind in Quantization:
        small = quantize(copy.deepcopy(whole), kind, torch.float32, "cpu").train()
        errors[kind] = (small(input_ids=ids).logits - expected).abs().mean().item()
    assert errors[Quantization.INT8] < errors[Quantization.NF4_SINGLE] / 3
    assert errors[Quantization.NF4] == pytest.approx(errors[Quantization.NF4_SINGLE], rel=0.2)


@pytest.mark.parametrize("kind", Quantization)
def test_adapters_take_every_form(kind: Quantization) -> None:
    """Beside quantised weights every adapter gets a gradient, and nothing else does."""
    model = attach_lora(quantize(network("llama"), kind, torch.float32, "cpu"), LoraMethod(rank=4), seed=0).train()
    model(input_ids=torch.arange(12)[None], labels=torch.arange(12)[None]).loss.backward()
    moving = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moving == {name for name, _ in model.named_parameters() if "lora_" in name}
