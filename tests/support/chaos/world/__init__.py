"""A simulated world: the real scheduler on a virtual clock and a database in memory, with nodes that misbehave.

What is real: the loop, its decisions, effects, followers, leases, verbs, and every SQL statement. What is played: the
network, the trainers, the registry, the users, the clock, and the moments at which the scheduler's process dies.
One seed gives one world: the same seed gives the same trace.
"""
