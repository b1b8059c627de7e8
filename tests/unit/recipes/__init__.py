"""Recipes as a library."""
