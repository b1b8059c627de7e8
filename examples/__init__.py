"""Real input: data sets, specs and client programs."""
