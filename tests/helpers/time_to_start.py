"""Time for workers and learners to start: a busy machine needs minutes for what an idle one does in seconds."""

TIME = {"worker_timeout": 300.0}
