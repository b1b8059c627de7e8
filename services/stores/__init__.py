"""Real servers for the suite's data on one machine: PostgreSQL and S3, started and ended with whoever needs them.

For the launcher, the tests and the benchmarks; services know their addresses only. In production both are somebody
else's task.
"""
