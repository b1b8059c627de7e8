"""The operator's recipes: found in a folder, described by processes of their own, served as data."""
