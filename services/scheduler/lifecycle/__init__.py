"""The life of a job beside its states: which jobs are meant, what may be reused, run again, removed or is poison."""
