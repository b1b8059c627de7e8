"""Bytes by digest: where they lie and how they come and go."""
