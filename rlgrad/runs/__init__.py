"""Runs: a policy, what trains it, and the folder that keeps both."""
