"""Rules and files of the registry."""
