"""Agents that learn from each step as it comes: nothing is stored but a trace of the gradients."""

from typing import Any, ClassVar

from rlgrad import search
from rlgrad.agent import Agent
from rlgrad.data import Estimates, Outputs, Rollout
from rlgrad.updates import Traces, Update


class StreamAgent(Agent):
    """An agent of one step, one update. Subclass it, and override `credit`.

    A credit says what enters the trace, z ← γλ z + Σ credit · ∇f; the update `Traces` then moves the weights along δ z, δ being
    `td_error`. So a credit of 1 on a value is TD(λ), and no credit has δ as a factor.

    Example:
        >>> class Mine(StreamAgent):
        ...     def credit(self, batch, now):
        ...         return {"log_prob": 1.0, "value": 1.0}
    """

    # A ClassVar over a field: no option of these agents. λ is one of their update.
    gae_lambda: ClassVar[float] = 0.0  # type: ignore[misc]
    episodes_per_env: ClassVar[int] = 1  # type: ignore[misc]

    decides_ahead: ClassVar[bool] = False
    """True if the next action is drawn before the weights move: `batch.next_actions` has it, and it is then taken."""

    num_envs: int = 1
    """Environments stepped side by side, each with a trace of its own."""
    num_steps: int | None = 1
    """Steps per environment for an update: always 1."""
    normalize_observations: bool = True
    """Standardize observations by their running mean and deviation, each by those that include it. `credit` sees them so."""
    scale_rewards: bool = True
    """Divide rewards by the standard deviation of their discounted sum. Logged returns stay in the environment's units."""
    truncation_ends_task: bool = False
    """Take a time limit for the end of the task, with no reward after it, as the code of Elsayed et al. does."""
    update: Update = Traces()
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.num_steps != 1:
            raise ValueError(
                f"{type(self).__name__} learns from each step as it comes, so num_steps is 1; got {self.num_steps}. For longer "
                "rollouts take an agent such as a2c or pqn."
            )

    def estimate(self, rollout: Rollout) -> Estimates:
        """Return `r + γ v(s′)` as the return, v(s′) being 0 where the task ended, and its difference from v(s) as the rest.

        Args:
            rollout: one step of each environment, (1, N).
        """
        if self.truncation_ends_task:
            rollout = rollout._replace(terminations=rollout.terminations | rollout.truncations)
        return super().estimate(rollout)

    def td_error(self, batch: Any, now: Outputs) -> Any:
        """Return δ, by which the trace is multiplied, float (N,); by default r + γ v(s′) − v(s).

        Args:
            batch: a `Batch` of one step of each environment.
            now: the outputs at the weights before the update.
        """
        return batch.td_errors

    def cuts(self, batch: Any, now: Outputs) -> Any:
        """Return float (N,): 1 where the trace is forgotten after the update; by default where the episode ended.

        Args:
            batch: as for `td_error`.
            now: as for `td_error`.
        """
        return batch.ends

    def search_space(self) -> search.Space:
        """Return ranges for the discount and the update, and whether rewards are scaled."""
        return {
            "gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999],
            "scale_rewards": [True, False],
            **search.under("update", self.update.search_space()),
        }
