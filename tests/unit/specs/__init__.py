"""Tests: training specs."""
