"""How many rows and columns rollouts have."""

from rlgrad.rollouts.vectorized import Environment


def check_counts(**counts: int | None) -> None:
    """Raise a ValueError for a count that is no integer ≥ 1, or for two kinds of rollouts at once."""
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ValueError(f"{name} is an integer ≥ 1, got {count!r}.")
    if counts["num_steps"] is not None and counts["episodes_per_env"] is not None:
        raise ValueError("Rollouts are by steps (num_steps) or by whole episodes (episodes_per_env): give one of them.")


def layout(
    environment: Environment,
    num_steps: int | None,
    episodes_per_env: int | None,
    max_episode_steps: int | None,
) -> tuple[int, int]:
    """The rows of a rollout, and how many episodes each slot plays in it: 0 for a rollout by steps."""
    if num_steps is None:
        if environment.time_limit is None:
            raise ValueError(
                "Rollouts of whole episodes need a bound on their length, and this environment's specification has "
                "none: give max_episode_steps=."
            )
        return environment.time_limit, episodes_per_env or 1
    if max_episode_steps is not None and not environment.limits_itself:
        raise ValueError(
            "In rollouts by steps max_episode_steps cannot cut the episodes of a vector environment, which resets its "
            "slots itself: give that environment a time limit of its own."
        )
    return num_steps, 0
