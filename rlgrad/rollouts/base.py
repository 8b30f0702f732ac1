"""The contract between a run and whatever collects its rollouts, and what a collector may ask of a policy."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from gymnasium import Space

from rlgrad.data import Episode, Rollout
from rlgrad.rollouts.episodes import whole_episodes

if TYPE_CHECKING:  # the distributions import TensorFlow, which collecting does not need
    from rlgrad.distributions import Distribution


class ActingPolicy(Protocol):
    """The part of a policy that collectors use.

    A policy with memory also has `initial_state(N)`, a tree of arrays (N, …). Its actor then takes observations and states, and
    returns parameters and the next states.
    """

    @property
    def distribution(self) -> "Distribution":
        """The distribution over actions: it samples them, or takes their mode."""

    def actor(self) -> Callable[..., Any]:
        """Return a function from observations (N, …) to the distribution's parameters, at the current weights."""


class Fusible(Protocol):
    """A collector whose rollouts can be played inside a larger compiled program, together with the update.

    Attributes:
        observation_space: of one environment.
        num_envs: N, the number of slots.
        shape: the two leading axes of every rollout.
        seed: of all rollouts, int32 (2,).
        number: of the next rollout. Its own seed is `rlgrad.random.fold_in(seed, number)`.
        xla: True if rollouts are compiled with XLA; set to False for a model that XLA cannot compile.
    """

    observation_space: Space[Any]
    num_envs: int
    shape: tuple[int, int]
    seed: Any
    number: int
    xla: bool

    @property
    def max_rollout_steps(self) -> int:
        """The most steps that one rollout can hold."""

    def slots(self, policy: Any) -> Any:
        """Return the variables that hold where each slot stands between two rollouts: a tree, `()` if there are none."""

    def play(self, policy: Any, slots: Any, seed: Any, greedy: Any = False) -> tuple[Rollout, Any, Any]:
        """Play a rollout of tensors. Return it, where each slot stands then, and the episodes that ended."""

    def advance(self, count: int, ends: Any) -> None:
        """Count rollouts that a program has played, and take in the episodes that ended in them, arrays (count, T, N)."""


class Collector(Protocol):
    """Plays a policy in N environment slots and records rollouts.

    `rlgrad.train(collector=…)` takes any class with these members. A subclass of this one inherits the defaults, and must add
    `observation_space`, `action_space`, `num_envs`, `shape` and `collect`. A run constructs the class once, and an evaluation
    constructs another one, with the arguments of `GymCollector`::

        Mine(env, num_envs=, num_steps=, episodes_per_env=, max_episode_steps=, seed=, vectorization_mode=, env_kwargs=,
             wrappers=, step_timeout=)

    `env` is what the user gave, and need not be known to Gymnasium. One of `num_steps` and `episodes_per_env` is `None`:
    rollouts hold so many steps of each slot, or so many whole episodes. Raise a ValueError for an option that the class cannot
    respect.

    Attributes:
        observation_space: of one environment.
        action_space: of one environment.
        num_envs: N, the number of slots.
        shape: the two leading axes of every rollout: (T, N), or (time limit, N * episodes_per_env) for whole episodes.
        reward_threshold: the mean return from which the task counts as solved. `None`: unknown.
        vectorization_mode: how the slots are stepped, for config.yaml and run.json.
    """

    observation_space: Space[Any]
    action_space: Space[Any]
    num_envs: int
    shape: tuple[int, int]
    reward_threshold: float | None = None
    vectorization_mode: str = "custom"

    @property
    def max_rollout_steps(self) -> int:
        """The most steps that one rollout can hold."""
        return math.prod(self.shape)

    @property
    def fusible(self) -> Fusible | None:
        """This collector, if a run may compile its rollouts and the update into one program; `None` if it may not."""
        return None

    @abstractmethod
    def collect(
        self, policy: ActingPolicy, greedy: bool = False, *, actor: Callable[..., Any] | None = None
    ) -> Rollout:
        """Play one rollout at the current weights.

        Args:
            policy: acts. Call its `actor()` once in each rollout.
            greedy: take the distribution's mode instead of sampling.
            actor: the result of `policy.actor()`, if the caller has it already.

        Returns:
            A rollout of NumPy arrays whose two leading axes are `shape`. No later call changes them. It must depend on nothing
            but the policy, the constructor's arguments and the calls before this one.

        Raises:
            FloatingPointError: a reward or an observation is not finite.
        """

    def outcomes(self, policy: ActingPolicy, greedy: bool = False) -> list[Episode]:
        """Play one episode in each slot, and return the episodes by slot. Evaluations call this with `episodes_per_env=1`.

        Args:
            policy: acts.
            greedy: take the distribution's mode instead of sampling.

        Raises:
            ValueError: the rollouts do not hold one whole episode of each slot.
        """
        rollout = self.collect(policy, greedy)
        self.drain_episodes()
        mask = rollout.mask > 0
        ends = (rollout.terminations | rollout.truncations) & mask
        if mask.shape[1] != self.num_envs or (ends.sum(axis=0) != 1).any():
            raise ValueError(
                f"Evaluating needs rollouts of one whole episode for each slot, and {type(self).__name__} gave others for "
                "episodes_per_env=1: give it rollouts of whole episodes, or an outcomes(policy, greedy) of its own."
            )
        return whole_episodes(rollout.rewards.astype("float64"), rollout.terminations, mask)

    def drain_episodes(self) -> list[Episode]:
        """Return the episodes that have finished since the last call, and forget them: they become `train/return`."""
        return []

    def begin_anew(self) -> None:
        """Prepare for a checkpoint: end episodes that a resumed run would take long to replay."""
        return None

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to continue from here: what JSON can hold, and NumPy arrays."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from where `state` was taken; called before the first rollout, after `variables` were assigned."""
        return None

    def variables(self, policy: Any) -> Sequence[Any]:
        """Return the TensorFlow variables that a checkpoint keeps besides `state`, always in the same order."""
        return ()

    def close(self) -> None:
        """Release the environments. Called once, after the last rollout."""
        return None


_REQUIRED = ("observation_space", "action_space", "num_envs", "shape")
_MEMBERS = (*_REQUIRED, *(name for name in vars(Collector) if not name.startswith("_")))  # of one that inherits nothing


def require_collector(thing: Any) -> Collector:
    """Return a collector that a user's class has made, or say what it lacks.

    Raises:
        TypeError: members are missing; names them.
    """
    inherits = Collector in type(thing).__mro__
    missing = [name for name in (_REQUIRED if inherits else _MEMBERS) if not hasattr(thing, name)]
    if missing:
        advice = "" if inherits else ", or inherit defaults from rlgrad.rollouts.Collector"
        raise TypeError(f"The collector {type(thing).__name__} has no {', '.join(missing)}: add them{advice}.")
    found: Collector = thing
    return found
