"""Lints and previews of data sets, in processes of their own."""
