"""Records that pass between the pieces: rollouts, episodes, estimates, batches, outputs and credits."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rlgrad.core.checks import close_names


class Rollout(NamedTuple):
    """The steps that the policy took: T time steps in N columns (environment slots, or whole episodes), time first.

    There is no `done`: returns stop at `terminations | truncations`, and only a termination makes the value of the next state
    zero. Rows where `mask` is 0 are padding or an autoreset step. They hold zeros or stale numbers, and do not count.

    Attributes:
        observations: (T, N, …), before each action. An array or a tree of arrays.
        actions: (T, N, …), as sampled: before clipping, counted from 0.
        rewards: float32 (T, N), raw, in the environment's units.
        terminations: bool (T, N), the task ended after this step.
        truncations: bool (T, N), the episode was cut after this step (a time limit).
        final_observations: (T, N, …), the true successor of each step: at an episode's end the last observation of that
            episode, never the first of the next; within an episode, `observations` of the next row.
        log_probs: float32 (T, N), log π(a|s) in nats when the action was taken.
        mask: float32 (T, N), 1 for a real step.
        values: float32 (T, N), v(s_t). `None` until the learner fills it, and where no output estimates a value.
        next_values: float32 (T, N), v of the true successor. `None` likewise.
        initial_states: (N, …), the memory of a policy before the first row: a tree of arrays, empty without a memory.
    """

    observations: Any
    actions: Any
    rewards: Any
    terminations: Any
    truncations: Any
    final_observations: Any
    log_probs: Any
    mask: Any
    values: Any = None
    next_values: Any = None
    initial_states: Any = ()


Credit = Mapping[str, Any]
"""How much the gradient of each trained output counts: a number, or float (M,). `Agent.credit` returns it."""


class Estimates(NamedTuple):
    """An agent's estimates from the rewards of a rollout, made before the update. Each float (T, N), in units of reward."""

    returns: Any
    advantages: Any
    td_errors: Any


class Batch(NamedTuple):
    """The numbers of a rollout that stay fixed during an update. M rows: steps, in no particular order.

    For a policy with memory, a row is a sequence of T steps: read (M, T) for (M,), and the observations are the sequences that
    the policy takes.

    Attributes:
        observations: (M, …), before each action. An array or a tree of arrays.
        actions: (M, …), as sampled.
        log_probs: float (M,), log π(a|s) in nats when the action was taken.
        values: float (M,), v(s), in units of reward; zeros if no output estimates it.
        returns: float (M,), from `Agent.estimate`, in units of reward.
        advantages: float (M,), likewise.
        td_errors: float (M,), likewise.
        weights: float (M,), how much each row counts: the update is Σ weights · credit · ∇f.
        progress: float (), share of the run's environment steps already taken, 0 … 1.
        rewards: float (M,), of the step, in units of reward.
        discounts: float (M,), γ; 0 where the task ended, and not where time ran out.
        next_observations: (M, …), the true successor of each step. A policy with memory has none.
        seeds: int32 (M, 2), of each row's random numbers.
        ends: float (M,), 1 where the episode ended after the step, be it that the task ended or that time ran out.
        next_actions: (M, …), what is taken after the step, where an agent decides ahead (`StreamAgent.decides_ahead`).
    """

    observations: Any
    actions: Any
    log_probs: Any
    values: Any
    returns: Any
    advantages: Any
    td_errors: Any
    weights: Any
    progress: Any
    rewards: Any = ()
    discounts: Any = ()
    next_observations: Any = ()
    seeds: Any = ()
    ends: Any = ()
    next_actions: Any = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by libraries, which look no further
            raise AttributeError(name)
        raise AttributeError(f"A batch has no {name!r}. {close_names(name, self._fields)}")


class ReplayBatch(NamedTuple):
    """M steps that a replay remembers, in no particular order, each with what came of it. `Batch` has the same names.

    Attributes:
        observations: (M, …), before each action. An array or a tree of arrays.
        actions: (M, …), as sampled.
        log_probs: float (M,), log of the probability with which the action was taken, in nats.
        rewards: float (M,), Σ_{k<m} γᵏ r_k over the m ≤ n steps that are added up, in units of reward.
        discounts: float (M,), γᵐ; 0 where the task ended, and not where time ran out.
        next_observations: (M, …), the true successor of the last of these steps.
        weights: float (M,), how much each row counts: the update is Σ weights · credit · ∇f.
        seeds: int32 (M, 2), of each row's random numbers.
        progress: float (), share of the run's environment steps already taken, 0 … 1.
    """

    observations: Any
    actions: Any
    log_probs: Any
    rewards: Any
    discounts: Any
    next_observations: Any
    weights: Any
    seeds: Any
    progress: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        advice = close_names(name, self._fields)
        if name in Batch._fields:
            advice = "It is of rollouts: a target here is batch.rewards + batch.discounts * v(batch.next_observations)."
        raise AttributeError(f"A batch of a replay has no {name!r}. {advice}")


class Outputs:
    """The policy's outputs at its current weights, as plain numbers; and the networks, to be asked elsewhere, for numbers.

    `log_prob`, `entropy` and `value` are float (M,). `q` is what the network says of the action that was taken: float (M,), or
    (M, K) with K quantiles or atoms; with E critics (M, E) or (M, E, K), what each of them says of it. `action`, (M, …), is
    a(s; ε), a sample of the policy as rollouts store actions, or μ(s) of a deterministic one; `action_log_prob`, (M,), is its
    log-probability. `logits`, (M, A), are those of Discrete actions. `beside` is what `Agent.beside` returned, with `q` of the
    same pass. The agent's `scalars` and its own `outputs` are there too, by name. Nothing here is differentiated.
    """

    log_prob: Any
    entropy: Any
    value: Any
    q: Any
    action: Any
    action_log_prob: Any
    logits: Any
    beside: Any

    def __init__(self, **outputs: Any) -> None:
        self.__dict__.update(outputs)

    def at(self, observations: Any, actions: Any = None) -> Any:
        """Return the outputs at other observations, and other actions if an output needs any.

        Args:
            observations: (M, …), such as `batch.next_observations`.
            actions: (M, …), as they are stored.

        Returns:
            An object with the outputs by name: `value`; `q_values`, what the network says of each Discrete action, (M, A) or
            (M, A, K), or E critics beside a policy, (M, E, A); `logits`, (M, A); `expected`, the expected return of each,
            (M, A); with actions `q` and `log_prob`; `entropy`; `action` and `action_log_prob`, a fresh sample of continuous
            ones at each call; and any other output of the model. A masked action has the value, or the logit, −1e9.
        """
        raise NotImplementedError("These are outputs without a policy to ask.")

    def target(self, observations: Any, actions: Any = None) -> Any:
        """Return what `at` does, at the target weights: the slow copies that the agent's field `target` describes."""
        raise NotImplementedError("These are outputs without a policy to ask.")

    def slope(self, output: Any, observations: Any, actions: Any) -> Any:
        """Return how an output of the critics moves with each number of stored actions, float (M, …) of their shape.

        Args:
            output: a function of the outputs at these, an object with `q` (M, E) and others, to float (M,).
            observations: (M, …).
            actions: (M, …), as they are stored, such as `now.action`.
        """
        raise NotImplementedError("These are outputs without a policy to ask.")

    def noise(self, size: int) -> Any:
        """Return standard normal numbers, float (M, size), from the batch's seeds: other ones at each call of a method."""
        raise NotImplementedError("These are outputs without a policy to ask.")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"There is no output {name!r}. {close_names(name, self.__dict__)}")


Metrics = dict[str, Any]


class Episode(NamedTuple):
    """One finished episode.

    Attributes:
        return_: undiscounted sum of its rewards, in the environment's units.
        length: number of its steps.
        terminated: True if the task ended, False if the episode was cut, by a time limit for instance.
    """

    return_: float
    length: int
    terminated: bool
