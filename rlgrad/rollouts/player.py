"""The loop in which a policy acts in its environments, one step of all slots after the other."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space

from rlgrad.environments.slots import Slots
from rlgrad.rollouts.base import ActingPolicy
from rlgrad.rollouts.memory import Memory
from rlgrad.rollouts.soundness import Array, require_finite_row
from rlgrad.rollouts.tape import Tape
from rlgrad.spaces.masks import has_mask, require_allowed
from rlgrad.spaces.trees import map_arrays, storage


class Player:
    """Plays a policy in all slots together.

    Args:
        slots: the environments.
        space: of one environment's observations.
        shape: (T, N), the most steps of a call, and the number of slots.
        generator: draws the random numbers of sampled actions.
        one_episode: stop when each slot has ended an episode, and begin no second one.

    Attributes:
        slots: the environments.
        num_envs: N.
        memory: what the policy remembers in each slot.

    Raises:
        ValueError: observations of this space cannot be stored.
    """

    def __init__(
        self,
        slots: Slots,
        space: Space[Any],
        shape: tuple[int, int],
        generator: np.random.Generator,
        one_episode: bool,
    ) -> None:
        self.slots, self.num_envs, self.memory = slots, shape[1], Memory(shape[1])
        self._shape, self._generator, self._one_episode = shape, generator, one_episode
        self._empty, self._masked = storage(space, (0,)), has_mask(space)

    def play(
        self, policy: ActingPolicy, act: Callable[..., Any], greedy: bool, observations: Any, record: bool = True
    ) -> tuple[Tape, Any]:
        """Step all slots T times, or until each has ended an episode.

        Args:
            policy: has the distribution that picks actions.
            act: its actor.
            greedy: take the most likely actions. Else the random numbers of all steps are drawn at once.
            observations: (N, …), to act on first.
            record: keep observations and log-probabilities. Else the tape has `()` in their place.

        Returns:
            The tape, zeros where nothing was played, and the observations (N, …) to act on next.

        Raises:
            FloatingPointError: an observation that is not kept, of an episode that counts, is not finite.
            OutputFault: an observation that its space does not have, or a mask that forbids every action.
        """
        (rows, num_envs), kept = self._shape, self._shape[0] if record else 1
        seen, successors = (
            map_arrays(lambda x: np.zeros((kept, num_envs, *x.shape[1:]), x.dtype), self._empty) for _ in range(2)
        )
        actions, noise, said = np.zeros(0), np.zeros(0), []
        rewards, terminations = np.zeros(self._shape), np.zeros(self._shape, np.bool_)
        truncations = np.zeros(self._shape, np.bool_)
        ended, unfinished = np.zeros(num_envs, np.bool_), np.ones(num_envs, np.bool_)
        slots, memory, distribution = self.slots, self.memory, policy.distribution
        act, late = memory.actor(policy, act), slots.resets_late
        remembers = bool(memory.of(policy))
        for row in range(rows):
            acted_on = _put(seen, row % kept, observations)
            if self._masked:
                require_allowed(acted_on, ended, row)
            parameters = act(acted_on)
            if record:
                said.append(parameters)
            if row == 0 and not greedy:
                noise = distribution.noise(parameters, self._generator, rows)
            chosen = distribution.mode(parameters)[0] if greedy else distribution.pick(parameters, noise[row])
            if row == 0:
                actions = np.zeros((rows, *chosen.shape), chosen.dtype)
            actions[row] = chosen
            stepped = slots.step(distribution.to_environment(chosen), row)
            observations, rewards[row], terminations[row], truncations[row], infos = stepped
            _put(successors, row % kept, observations)
            if remembers and late and np.count_nonzero(ended):
                memory.forget(ended)
            if not record:
                slots.require_choices(seen, successors, row)
                require_finite_row(seen, successors, unfinished, row)
            np.logical_or(terminations[row], truncations[row], out=ended)
            if not np.count_nonzero(ended):
                continue
            unfinished &= ~ended
            if not late:
                if remembers:
                    memory.forget(ended)
                observations = slots.renew(
                    ended, observations, infos, successors=successors, row=row % kept, idle=self._one_episode
                )
            if self._one_episode and not unfinished.any():
                break
        tape = Tape(seen, actions, rewards, terminations, truncations, successors, ())
        if not record:
            return tape._replace(observations=(), final_observations=()), observations
        played = len(said)
        slots.require_choices(*(map_arrays(lambda x: x[:played], tree) for tree in (seen, successors)))
        return tape._replace(log_probs=self._log_probs(distribution, said, actions)), observations

    def _log_probs(self, distribution: Any, said: list[Any], actions: Array) -> Array:
        """Return log π(a|s) (T, N) of the rows that were played, zeros in the others, from the parameters of each row."""
        log_probs, played = np.zeros(self._shape, np.float32), len(said)
        parameters = map_arrays(lambda *parts: np.concatenate(parts).reshape(played, *parts[0].shape), *said)
        log_probs[:played] = distribution.numpy_log_prob(parameters, actions[:played])
        return log_probs


def _put(store: Any, index: int, values: Any) -> Any:
    """Copy `values` into row `index` of a storage tree and return that row, a view in the storage's dtype.

    Raises:
        ValueError: an array has another shape than the row.
    """
    if isinstance(store, np.ndarray):
        row = store[index]
        if row.shape != values.shape:
            raise ValueError(
                f"An observation has the shape {values.shape} where the observation space says {row.shape}."
            )
        row[...] = values
        return row
    if isinstance(store, dict):
        return {key: _put(inner, index, values[key]) for key, inner in store.items()}
    return tuple(_put(inner, index, value) for inner, value in zip(store, values, strict=True))
