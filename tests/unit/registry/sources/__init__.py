"""Imports from elsewhere."""
