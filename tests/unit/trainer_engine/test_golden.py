"""A LoRA step against twenty lines of NumPy: forward pass, loss, gradients and one AdamW update."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from services.trainer.engine.optimizers import make_optimizer, update
from tuneforge.specs.spec import Optimizer

Array = NDArray[np.float64]


def reference(x: Array, w: Array, a: Array, b: Array, targets: NDArray[np.int64]) -> dict[str, Any]:
    """Returns loss and gradients of cross-entropy over y = x W^T + (alpha / rank) x A^T B^T; alpha 8, rank 2."""
    scale = 8 / 2
    logits = x @ w.T + scale * (x @ a.T) @ b.T
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(targets))
    d_logits = np.exp(log_p)
    d_logits[rows, targets] -= 1
    return {
        "sum": -log_p[rows, targets].sum(),
        "a": scale * (d_logits @ b).T @ x,
        "b": scale * d_logits.T @ (x @ a.T),
    }


def adamw(weight: Array, gradient: Array, *, rate: float, decay: float) -> Array:
    """Returns a weight after the first AdamW step: the decay beside, and both means corrected for their start at 0."""
    first, second = 0.1 * gradient / (1 - 0.9), 0.001 * gradient**2 / (1 - 0.999)
    return weight * (1 - rate * decay) - rate * first / (np.sqrt(second) + 1e-8)


def test_a_step_of_lora_is_that_of_the_papers() -> None:
    """PEFT's layer, our loss and the update rule give the numbers of the NumPy reference."""
    from peft.tuners.lora.config import LoraConfig
    from peft.tuners.lora.layer import Linear

    from services.trainer.engine.batches import MicroBatch
    from services.trainer.engine.losses import supervised_loss

    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 6)), rng.normal(size=(7, 6))
    a, b = rng.normal(size=(2, 6)), rng.normal(size=(7, 2))
    targets = rng.integers(0, 7, 5)
    base = torch.nn.Linear(6, 7, bias=False)
    layer = Linear(base, "default", config=LoraConfig(r=2, lora_alpha=8), r=2, lora_alpha=8)
    factors = {"a": layer.lora_A["default"].weight, "b": layer.lora_B["default"].weight}
    with torch.no_grad():
        for parameter, value in ((base.weight, w), (factors["a"], a), (factors["b"], b)):
            parameter.copy_(torch.from_numpy(value))
    base.weight.requires_grad_(False)

    class Identity:
        """A model whose decoder returns `x` and whose head is the adapted layer."""

        config = None

        def get_decoder(self) -> Any:
            hidden = torch.from_numpy(x).float()[None]
            return lambda **_: type("Output", (), {"last_hidden_state": hidden})

        def get_output_embeddings(self) -> Any:
            return layer

    batch = MicroBatch(
        input_ids_BT=torch.zeros(1, 5, dtype=torch.int64),
        position_ids_BT=None,
        rows_T=None,
        predictors_S=torch.arange(5),
        targets_S=torch.from_numpy(targets),
        ends_R=torch.tensor([4]),
        tokens=5,
    )
    expected = reference(x, w, a, b, targets)
    found = supervised_loss(Identity(), batch)
    found.sum.backward()
    np.testing.assert_allclose(found.sum.item(), expected["sum"], rtol=1e-5)
    optimizer = make_optimizer(Optimizer.ADAMW, factors, weight_decay=0.1)
    for name, before in (("a", a), ("b", b)):
        np.testing.assert_allclose(factors[name].grad, expected[name], rtol=1e-4, atol=1e-5)
        expected[name] = adamw(before, expected[name], rate=0.01, decay=0.1)
    update(optimizer, 0.01)
    for name, parameter in factors.items():
        np.testing.assert_allclose(parameter.detach(), expected[name], rtol=1e-4, atol=1e-5)
