"""Jobs, attempts, nodes' leases, and the durable event log of every job."""
