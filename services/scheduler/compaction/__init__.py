"""Thinning out the logs of jobs that have ended, by a policy that is off until an operator sets it."""
