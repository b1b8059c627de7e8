"""Training specs: dataclasses, validation and memory arithmetic; needs neither torch nor transformers."""
