"""The four services and the plumbing that they share."""
