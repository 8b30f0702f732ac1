"""Environments: found by id, made, put side by side, and guarded."""
