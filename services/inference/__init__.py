"""Deployments: loaded bases and adapters, and the answers that they give."""
