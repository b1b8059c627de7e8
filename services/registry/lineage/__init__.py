"""What was made from what: the graph, its queries, and the revocation of data."""
