"""How long workers and learners may take until they count as hanging, and are replaced.

Nobody knows how long a step of an environment takes, so a limit follows from what was seen: ten times as long as the slowest so
far, and never less than the time within which a worker has to be ready. Each time that this was not enough, it is doubled.
"""

_TIMES = 10  # the slowest so far


def patience(expected: float, least: float, hung: int) -> float:
    """Return the seconds until an answer counts as missing.

    Args:
        expected: seconds that an answer took so far at most.
        least: seconds that are always given.
        hung: how often the answer was missing already.
    """
    return max(least, _TIMES * expected) * 2.0**hung


class Pace:
    """Seconds of a step in the slowest rollout so far, and how long the next one may take.

    Args:
        steps: that a rollout has at most.
        step_timeout: seconds that a step may take. `None`: that follows from the rollouts before.
        least: seconds that a rollout is always given where there is no `step_timeout`. Before any has ended, each step is.
    """

    def __init__(self, steps: int, step_timeout: float | None, least: float) -> None:
        self._steps, self._step_timeout, self._slowest = steps, step_timeout, 0.0
        self.least = least

    def limit(self, replayed: int, hung: int) -> float:
        """Return the seconds that a rollout may take.

        Args:
            replayed: steps of episodes that are played again beforehand.
            hung: how often it took too long already.
        """
        steps = self._steps + replayed + 1
        if self._step_timeout is not None:
            return self._step_timeout * steps
        if not self._slowest:
            return patience(0.0, self.least * steps, hung)
        return patience(self._slowest * steps, self.least, hung)

    def note(self, seconds: float, steps: float) -> None:
        """Take in how long a rollout of so many steps took."""
        self._slowest = max(self._slowest, seconds / max(1.0, steps))
