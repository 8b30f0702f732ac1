"""Policies as files that act without rlgrad."""
