"""Queues of projects: weights, quotas and budgets, and what their jobs were given. Read `accounts.py` first."""
