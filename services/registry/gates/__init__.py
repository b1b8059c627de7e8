"""Gates as data: what has to hold before an alias may be moved, and what was found when it was asked."""
