"""The peer of `submit_to_first_step`: a plain PEFT script, started cold, that makes one optimiser step.

    python -m benchmarks.cold_script MODEL_FOLDER ROWS.jsonl bf16|fp32

Prints one JSON line: `loss` of the step (nats a supervised token), `tokens` of its rows, `loaded_s` (seconds of
loading, imports left out) and `forward_at` (Unix time at which the forward pass began). The same base, rows, rank,
number format and optimiser as the job; written as a person who knows the libraries would write it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

RANK = 16
LEARNING_RATE = 1e-3


def main(folder: str, rows: str, compute: str) -> None:
    """Loads, makes one step, prints."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    began = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    model = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=LEARNING_RATE)
    loaded_s = time.monotonic() - began

    encoded = []
    for line in Path(rows).read_text().splitlines():
        messages = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(whole.rstrip("\n"), add_special_tokens=False)["input_ids"]
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        encoded.append((ids, start))
    longest = max(len(ids) for ids, _ in encoded)
    tokens_BT = torch.full((len(encoded), longest), tokenizer.pad_token_id)
    labels_BT = torch.full_like(tokens_BT, -100)
    mask_BT = torch.zeros_like(tokens_BT)
    for row, (ids, start) in enumerate(encoded):
        tokens_BT[row, : len(ids)] = torch.tensor(ids)
        labels_BT[row, start : len(ids)] = torch.tensor(ids[start:])
        mask_BT[row, : len(ids)] = 1
    forward_at = time.time()
    with torch.autocast("cpu", torch.bfloat16, enabled=compute == "bf16"):
        loss = model(input_ids=tokens_BT, attention_mask=mask_BT, labels=labels_BT).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    tokens = sum(len(ids) for ids, _ in encoded)
    found = {"loss": loss.item(), "tokens": tokens, "loaded_s": loaded_s, "forward_at": forward_at}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
