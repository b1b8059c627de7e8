"""Rules of sweeps, without a database or a socket."""
