"""Spaces: what an environment shows, and what it takes."""
