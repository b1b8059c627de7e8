"""Tests: suite."""
