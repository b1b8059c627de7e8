"""Tests of rows, chat templates and token masks."""
