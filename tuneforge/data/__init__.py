"""Rows, their shapes, chat rendering and loss masks; needs neither torch nor transformers."""
