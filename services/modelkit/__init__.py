"""Verified loading, quantisation and adapters: imported by trainer and inference only."""
