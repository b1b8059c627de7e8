"""Tests of the graph of lineage and of revocation, without a network."""
