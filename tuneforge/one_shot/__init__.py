"""One command from a model and rows to a tuned model: its settings, its spec, its services and its files."""
