"""Data sets, models, versions, aliases, lineage, and their bytes by digest."""
