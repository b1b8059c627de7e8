"""Tests: wheel."""
