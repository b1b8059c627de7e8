"""Gates without a database."""
