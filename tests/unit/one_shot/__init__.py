"""Tests of the one command from a model and rows to a tuned model."""
