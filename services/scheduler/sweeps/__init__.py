"""Sweeps: searches over fields of a training spec whose trials are jobs. Pure rules, and the controller that acts."""
