"""Signatures over manifests: the registry's key, what it signs, and the check of what is stored."""
