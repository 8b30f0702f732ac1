"""Collects rollouts from Gymnasium environments: so many steps, or so many whole episodes, of each slot."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rlgrad.data import Episode, Rollout
from rlgrad.environments.making import make
from rlgrad.environments.slots import Slots
from rlgrad.random import StreamName, stream
from rlgrad.rollouts.base import ActingPolicy, Collector
from rlgrad.rollouts.checks import check_counts, layout
from rlgrad.rollouts.episodes import whole_episodes
from rlgrad.rollouts.memory import Memory
from rlgrad.rollouts.ongoing import Ongoing
from rlgrad.rollouts.playing import Tape, first_episode, outcomes, play, side_by_side, to_rollout
from rlgrad.spaces.trees import storage

if TYPE_CHECKING:  # the distributions import TensorFlow, which collecting does not need
    from rlgrad.distributions import Distribution


class GymCollector(Collector):
    """Plays a policy in N environment slots and records what it met.

    By steps (`num_steps`): every rollout is T = `num_steps` steps of each slot, and episodes go on in the next rollout.

    By whole episodes: every rollout starts all slots afresh, and each slot plays `episodes_per_env` episodes, however
    long they take, so that long and short ones are met as often as they occur. A column is one episode, padded to the
    time limit; column `slot * episodes_per_env + episode` is fixed beforehand, whoever finishes first. All slots begin
    their next episode together: one that is done idles (is stepped without effect) until the others are.

    Same seed, same rollouts to the bit, and the same with `"sync"` as with `"async"`. There each episode has a seed of
    its own, a function of the seed, the slot and the episode's number; vector entry points, and vector environments
    that reset themselves, are seeded when all slots start. An environment given as an instance must not be stepped
    elsewhere between rollouts by steps, and is left open by `close`.

    Args:
        env: an id (`"CartPole-v1"`, `"module:Env-v0"`), a `gymnasium.Env` (one slot), a function that makes one, or a
            `gymnasium.vector.VectorEnv` of any autoreset mode.
        num_envs: slots. Default: 8, or 1 for an instance, or what a vector environment has.
        num_steps: T, for rollouts by steps.
        episodes_per_env: for rollouts of whole episodes; 1 if neither is given.
        max_episode_steps: episodes are truncated after so many steps. For an id it replaces the specification's limit;
            an environment made elsewhere keeps its own limit too, and the lower one counts.
        seed: an integer ≥ 0.
        streams: the two streams of the seed (`rlgrad.random.stream`) that environments and actions draw from. They may
            be the same one: environments use its children only, actions the stream itself.
        vectorization_mode: `"sync"`, `"async"` (one process a slot), `"vector_entry_point"` (an id's own), or `"auto"`: an
            id's own vector entry point where it means the same, else `"sync"`.
        env_kwargs: keyword arguments for the environment's constructor or the function.
        wrappers: around each environment, the first one innermost: names of `gymnasium.wrappers` or `module:Name`, alone or
            with keyword arguments, `"FrameStackObservation(stack_size=4)"`.
        step_timeout: seconds within which all slots have answered to a step or a reset, for `"async"`; none: no limit.

    Raises:
        ValueError: options that contradict each other, an unknown id, a space that is not supported, whole episodes
            without a time limit, or a vector environment that does not say how it resets.
        TypeError: `env` is none of the above.
        ImportError: the environment needs a package that is not installed; the message has the command.

    Example:
        >>> with GymCollector("CartPole-v1", num_envs=2, num_steps=16) as collector:
        ...     rollout = collector.collect(policy)      # doctest: +SKIP
    """

    def __init__(
        self,
        env: Any,
        *,
        num_envs: int | None = None,
        num_steps: int | None = None,
        episodes_per_env: int | None = None,
        max_episode_steps: int | None = None,
        seed: int = 0,
        streams: tuple[StreamName, StreamName] = ("environment", "action"),
        vectorization_mode: str = "auto",
        env_kwargs: Mapping[str, Any] | None = None,
        wrappers: Sequence[str] = (),
        step_timeout: float | None = None,
    ) -> None:
        check_counts(
            num_envs=num_envs,
            num_steps=num_steps,
            episodes_per_env=episodes_per_env,
            max_episode_steps=max_episode_steps,
        )
        seeds, draws = stream(seed, streams[0]), stream(seed, streams[1])
        self._environment = make(
            env, num_envs, max_episode_steps, vectorization_mode, env_kwargs, wrappers, step_timeout
        )
        self._open = True
        vector = self._environment.vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space
        self.num_envs, self.reward_threshold = vector.num_envs, self._environment.reward_threshold
        self.vectorization_mode = self._environment.vectorization_mode
        try:
            self._rows, self._rounds = layout(self._environment, num_steps, episodes_per_env, max_episode_steps)
            self.shape = (self._rows, self.num_envs * (self._rounds or 1))
            self._empty = storage(self.observation_space, (0,))
        except BaseException:
            self.close()
            raise
        self._slots = Slots(self._environment, seeds)
        self._generator = np.random.Generator(np.random.PCG64(draws))
        self._memory = Memory(self.num_envs)
        self._ongoing = Ongoing(self._slots, self._memory, self.num_envs)
        self._finished: list[Episode] = []

    def collect(
        self, policy: ActingPolicy, greedy: bool = False, *, actor: Callable[..., Any] | None = None
    ) -> Rollout:
        """Plays one rollout with the policy's weights of now.

        Args:
            policy: its `actor()` is taken once, now.
            greedy: take the distribution's mode instead of sampling.
            actor: what `policy.actor()` would give, for somebody who has it, as `Learner.actor` does.

        Returns:
            A rollout whose two leading axes are `shape`, in arrays that no later rollout changes.

        Raises:
            FloatingPointError: a reward or an observation is not finite.
            EnvironmentFault: an environment raised, gave what its spaces do not promise, hung or lost its process.
            RuntimeError: the collector is closed.
        """
        self._require_open()
        collect = self._collect_episodes if self._rounds else self._collect_steps
        return collect(policy, greedy, actor)

    def outcomes(self, policy: ActingPolicy, greedy: bool = False) -> list[Episode]:
        """Plays an episode in each slot, as `collect` does, and keeps of it only what it came to, by slot.

        Args:
            policy: its `actor()` is taken once, now.
            greedy: take the distribution's mode instead of sampling.

        Raises:
            FloatingPointError: a reward or an observation is not finite.
            EnvironmentFault: an environment raised, gave what its spaces do not promise, hung or lost its process.
            RuntimeError: the collector is closed.
            ValueError: the collector is one of rollouts by steps, or of several episodes for each slot.
        """
        self._require_open()
        if self._rounds != 1:
            raise ValueError("Outcomes are of whole episodes, one for each slot: leave num_steps out.")
        self._memory.begin(policy)
        actor, distribution = self._memory.actor(policy, None), policy.distribution
        tape, _ = self._play(actor, distribution, greedy, self._slots.restart(), record=False)
        return outcomes(tape, columns_per_slot=1)

    def drain_episodes(self) -> list[Episode]:
        """The episodes finished since the last call: by time, then slot; or by column where columns are episodes."""
        finished, self._finished = self._finished, []
        return finished

    def begin_anew(self) -> None:
        """Lets slots begin anew that were given one seed together, so that going on from here need not play all that again.

        Episodes that have a seed each go on, and so do all where little would have to be played: giving seeds may take an
        environment longer than that.
        """
        self._ongoing.begin_anew()

    def state(self) -> dict[str, Any]:
        """What a later collector needs to go on where this one stands: numbers and arrays."""
        return {
            "actions": self._generator.bit_generator.state,
            "episodes": self._slots.started,
            "restarts": self._slots.restarts,
            "running": self._ongoing.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken, when it collects next.

        The running episodes begin again with their seeds, and are played the actions that they have seen. Where an
        environment does not do then what it had done, a warning says so, and every slot begins a new episode.

        Args:
            state: from `state`, of a collector with as many slots.

        Raises:
            ValueError: the number of slots is another.
        """
        if len(state["episodes"]) != self.num_envs:
            raise ValueError(f"The state is of {len(state['episodes'])} slots, and this collector has {self.num_envs}.")
        self._generator.bit_generator.state = state["actions"]
        self._slots.started, self._slots.restarts = list(state["episodes"]), state["restarts"]
        self._ongoing.restore(state["running"])

    def close(self) -> None:
        """Closes the environments that the collector made; an instance that it was given stays open."""
        if self._open and self._environment.owned:
            self._environment.vector.close()
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if not self._open:
            raise RuntimeError("This collector is closed; make a new one.")

    def _collect_steps(self, policy: ActingPolicy, greedy: bool, act: Callable[..., Any] | None) -> Rollout:
        rollout, finished = self._ongoing.collect(
            policy,
            lambda observations: self._play(self._memory.actor(policy, act), policy.distribution, greedy, observations),
        )
        self._finished += finished
        return rollout

    def _collect_episodes(self, policy: ActingPolicy, greedy: bool, act: Callable[..., Any] | None) -> Rollout:
        actor, distribution = self._memory.actor(policy, act), policy.distribution
        tapes, masks = [], []
        for _ in range(self._rounds):
            self._memory.begin(policy)
            tape, _ = self._play(actor, distribution, greedy, self._slots.restart())
            tape, mask = first_episode(tape)
            tapes.append(tape)
            masks.append(mask)
        tape, mask = side_by_side(tapes, masks)
        initial_states = Memory(mask.shape[1]).of(policy)
        rollout = to_rollout(tape, mask, columns_per_slot=self._rounds, initial_states=initial_states)
        self._finished += whole_episodes(tape.rewards, tape.terminations, mask)
        return rollout

    def _play(
        self,
        actor: Callable[[Any], Any],
        distribution: "Distribution",
        greedy: bool,
        observations: Any,
        record: bool = True,
    ) -> tuple[Tape, Any]:
        return play(
            self._slots,
            self._empty,
            (self._rows, self.num_envs),
            observations,
            act=actor,
            distribution=distribution,
            generator=None if greedy else self._generator,
            forget=self._memory.forget,
            one_episode=self._rounds > 0,
            record=record,
        )
