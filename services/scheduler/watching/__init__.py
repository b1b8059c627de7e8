"""Streams over many things: all jobs, the queue. One reader of the database a process, any number of watchers."""
