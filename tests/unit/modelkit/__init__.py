"""Tests of verified loading, quantisation and adapters."""
