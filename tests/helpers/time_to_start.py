"""Time for workers and learners to start: a busy machine needs minutes for what an idle one does in seconds."""

TIME = {"worker_timeout": 300.0}
SMALL = {
    "num_envs": 4,
    "hidden_sizes": (16,),
    "evaluation_episodes": 0,
    "seed": 3,
    "logs": (),
    "verbose": False,
    **TIME,
}
"""Settings of a short run with four slots."""
