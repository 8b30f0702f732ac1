"""Learning: from a rollout to new weights."""
