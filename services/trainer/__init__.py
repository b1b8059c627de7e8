"""One node: its devices, its workers, and the attempts that run on it."""
