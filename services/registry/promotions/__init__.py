"""Promotion: copies of versions in the operator's deploy location."""
