"""Loads results with plain transformers and peft, and nothing of ours: run as a script, in a process of its own.

`python plain_loading.py ORDERS.json OUTPUT.safetensors`: for each order it writes the logits of some tokens; what it
says of tokenizers goes to standard output as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)


def load(order: dict[str, Any]) -> Any:
    """Returns the model of an order, in float32."""
    if order["kind"] == "scores":
        return AutoModelForSequenceClassification.from_pretrained(order["model"], dtype=torch.float32)
    options: dict[str, Any] = {}
    if order["four_bit"]:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    model = AutoModelForCausalLM.from_pretrained(order["model"], dtype=torch.float32, **options)
    *below, top = order["adapters"] or [None]
    for adapter in below:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return PeftModel.from_pretrained(model, top) if top else model


def main(orders_path: str, output_path: str) -> None:
    """Carries out all orders."""
    told: dict[str, bool] = {}
    logits: dict[str, torch.Tensor] = {}
    orders: dict[str, dict[str, Any]] = json.loads(Path(orders_path).read_text(encoding="utf-8"))
    for name, order in orders.items():
        model = load(order).eval()
        for module in model.modules():
            if type(module).__name__ == "Linear4bit":
                module.train()  # on a CPU, evaluation mode computes in bfloat16
        with torch.no_grad():
            logits[name] = model(input_ids=torch.tensor([order["tokens"]])).logits[0].float().contiguous()
        own, base = (AutoTokenizer.from_pretrained(order[folder]) for folder in ("result", "base"))
        turns = [{"role": "user", "content": "Say cat 0."}]
        texts = [each.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) for each in (own, base)]
        told[name] = texts[0] == texts[1] and own(texts[0])["input_ids"] == base(texts[0])["input_ids"]
    save_file(logits, output_path)
    strangers = sorted(name for name in sys.modules if name.split(".")[0] in {"tuneforge", "services"})
    print(json.dumps({"same_tokenizer": told, "strangers": strangers}))


if __name__ == "__main__":
    main(*sys.argv[1:])
