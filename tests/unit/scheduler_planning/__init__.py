"""Tests of the planner and of its simulation."""
