"""Aliases: names that point to one version of a model, and the log of their moves."""
