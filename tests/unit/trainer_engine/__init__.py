"""Tests of the training engine's parts."""
