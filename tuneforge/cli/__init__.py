"""The command line. Its modules import little at their top, so that `tuneforge --help` is instant."""
