"""Environments: finding them by id, making them, stepping them together, and checking what they return."""
