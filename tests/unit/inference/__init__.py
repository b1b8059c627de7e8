"""Tests of the inference service's rules and of its engine's parts."""
