"""The scheduler's rules, without sockets."""
