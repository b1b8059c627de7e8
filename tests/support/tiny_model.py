"""A random Llama of a few thousand weights, its adapters and rows, written in milliseconds without torch.

The files are those of a Hugging Face model folder, so everything that loads a real model loads this one. The tokenizer
knows every byte, a few merges and ChatML's special tokens; equal arguments give equal bytes.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MERGES = ("Ġ t", "h e", "Ġt he", "i n", "Ġ a", "r e", "o n", "e r", "Ġ s", "a t", "u s", "us er", "a s", "as s")


def make_tiny_model(folder: Path, *, seed: int = 0, layers: int = 2, hidden: int = 64) -> Path:
    """Writes `config.json`, `generation_config.json`, `model.safetensors` (float32) and a tokenizer into `folder`.

    Args:
        folder: made when missing.
        seed: seed of the weights.
        layers: decoder blocks, >= 1.
        hidden: model width, a multiple of 16; the MLP is twice as wide.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 3,
        "dtype": "float32",
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 3})
    save_file(_weights(seed, layers, hidden, vocabulary), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_tiny_adapter(folder: Path, *, seed: int = 0, rank: int = 4, layers: int = 2, hidden: int = 64) -> Path:
    """Writes a LoRA adapter of a tiny model's attention in PEFT's files; both factors are random, so answers change."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 8 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    _write_json(folder / "adapter_config.json", config)
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(layers):
        for module, width in (("q_proj", hidden), ("v_proj", hidden // 2)):
            path = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{path}.lora_A.weight"] = rng.normal(0, 0.3, (rank, hidden)).astype(np.float32)
            tensors[f"{path}.lora_B.weight"] = rng.normal(0, 0.3, (width, rank)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def write_rows(path: Path, count: int = 8) -> Path:
    """Writes `count` short conversations as JSONL."""
    animals = ("cat", "dog", "owl", "bee", "ant", "fox", "hen", "pig")
    lines = []
    for index in range(count):
        turns = [
            {"role": "user", "content": f"Say {animals[index % len(animals)]} {index}."},
            {"role": "assistant", "content": f"{animals[index % len(animals)]} {index}"},
        ]
        lines.append(json.dumps({"messages": turns}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _weights(seed: int, layers: int, hidden: int, vocabulary: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(0, 1 / np.sqrt(columns), (rows, columns)).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": matrix(vocabulary, hidden),
        "model.norm.weight": np.ones(hidden, np.float32),
    }
    for layer in range(layers):
        shapes = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (hidden // 2, hidden),
            "self_attn.v_proj": (hidden // 2, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (2 * hidden, hidden),
            "mlp.up_proj": (2 * hidden, hidden),
            "mlp.down_proj": (hidden, 2 * hidden),
        }
        for name, (rows, columns) in shapes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = matrix(rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = np.ones(hidden, np.float32)
    return weights


def _write_tokenizer(folder: Path) -> int:
    """Writes the tokenizer's files and returns the size of its vocabulary."""
    pieces = [*_byte_alphabet(), *(merge.replace(" ", "") for merge in _MERGES)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = [
        {
            "id": len(pieces) + index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, token in enumerate(SPECIAL_TOKENS)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": [merge.split(" ") for merge in _MERGES],
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": CHATML,
    }
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", config)
    return len(pieces) + len(special)


def _byte_alphabet() -> list[str]:
    """The printable stand-ins of the 256 bytes that byte-level BPE uses (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(hidden))]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
