"""Verified loading, quantisation and adapters: imported by trainer and inference only.

`artifacts.py` (no torch) brings the files of a version into a cache by digest; `loading.py` checks every byte of them
and makes a model; `adapters.py` puts LoRA adapters beside or into it and writes results in files that PEFT reads.

Nothing in here reaches the network on its own, runs code that came with a model, or reads a pickle.
"""

import os

# Libraries below look for newer files at their hub unless told otherwise; a model is what its manifest says.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
# Nothing here is compiled, but bitsandbytes asks for torch's compiler as it is imported: a second, and 550 modules.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
