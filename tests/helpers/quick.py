"""A training that takes a second."""

QUICK = {"total_timesteps": 1024, "num_envs": 4, "num_steps": 32, "evaluation_episodes": 4, "verbose": False}
QUICK |= {"vectorization_mode": "sync"}  # in which every step counts
