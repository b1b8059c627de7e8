"""What is kept and for how long: pins, expirations, deletions, and the collector of what nothing needs."""
