"""The collector of environments written in TensorFlow: acting, stepping and resetting are one compiled program."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import tensorflow as tf

from rlgrad import random
from rlgrad.core.capacity import memory
from rlgrad.core.nested import leaves, map_leaves, with_leaves
from rlgrad.core.tensorflow_internals import trace
from rlgrad.data import Episode, Rollout
from rlgrad.environments.functional import AnyFuncEnv, begin_episodes, choose, move
from rlgrad.rollouts.base import Collector
from rlgrad.rollouts.compiled_rows import Ends, RolloutRow, SlotStates, row_specs
from rlgrad.rollouts.episodes import whole_episodes
from rlgrad.rollouts.explorer import Explorer
from rlgrad.rollouts.lengths import LEAST, MOST_STEPS, endless, lengths, require_storage, size_of_row
from rlgrad.rollouts.soundness import check_counts, require_room, require_sound
from rlgrad.rollouts.tape import lengthened
from rlgrad.spaces.masks import MASK
from rlgrad.spaces.trees import arrays, map_arrays, ranges, storage

_PURPOSES = 3  # of the seeds of a step: to act, to move, to begin an episode
_LARGE = memory() // 8  # bytes of observations; the limit up to which whole episodes are part of a compiled program


class CompiledCollector(Collector):
    """Plays a policy in N slots of an environment written in TensorFlow and records rollouts.

    Rollouts are those of `GymCollector`: by steps, or by whole episodes. When an episode ends, the next one begins in the same
    step, so no step is spent on resetting. `collect` plays one rollout in one compiled call; `play` does the same inside a
    larger compiled program. Whole episodes whose limit is long or unknown are played some rows at a time instead, until the
    last one has ended, so that they cost what they are long.

    The random numbers of rollout k are a pure function of the seed and of k; each slot and step has its own seeds.

    Args:
        functional: pure functions of batches; see `rlgrad.environments.functional`.
        num_envs: slots.
        num_steps: T, for rollouts by steps.
        episodes_per_env: for rollouts of whole episodes; 1 if neither is given.
        max_episode_steps: episodes are truncated after so many steps. `None`: the environment's limit.
        seed: an integer ≥ 0.
        streams: as for `GymCollector`; only the first one is used.

    Attributes:
        functional: the environment.
        num_envs: slots.
        seed: of all rollouts, int32 (2,).
        number: of the next rollout, whose own seed is `random.fold_in(seed, number)`.
        shape: the two leading axes of every rollout: (T, N), or (time limit, N * episodes_per_env) for whole episodes.
        xla: compile rollouts with XLA; set to False for a model that XLA cannot compile.

    Raises:
        ValueError: options that contradict each other, a space that is not supported, or rollouts that do not fit into memory.
    """

    vectorization_mode = "compiled"

    def __init__(
        self,
        functional: AnyFuncEnv,
        *,
        num_envs: int | None = None,
        num_steps: int | None = None,
        episodes_per_env: int | None = None,
        max_episode_steps: int | None = None,
        seed: int = 0,
        streams: tuple[random.StreamName, random.StreamName] = ("environment", "action"),
    ) -> None:
        num_envs = 8 if num_envs is None else num_envs
        check_counts(
            num_envs=num_envs,
            num_steps=num_steps,
            episodes_per_env=episodes_per_env,
            max_episode_steps=max_episode_steps,
        )
        self.functional = functional
        self.observation_space, self.action_space = functional.observation_space, functional.action_space
        self.reward_threshold = getattr(functional, "reward_threshold", None)
        self.num_envs = num_envs
        self.time_limit = max_episode_steps or getattr(functional, "max_episode_steps", None)
        self._whole = num_steps is None
        columns = num_envs * (episodes_per_env or 1)
        self._zeros = storage(self.observation_space, (0,))
        self._row_bytes = size_of_row(self._zeros, columns)
        self._lengths = (num_steps,) if num_steps is not None else lengths(self.time_limit, self._row_bytes, _LARGE)
        self.shape = (self._lengths[-1], columns)
        if num_steps is not None:
            require_room(self.shape, self._row_bytes)
        if len(self._lengths) == 1:
            require_storage(self.shape[0], self._row_bytes)
        self.seed = random.seed_of(random.stream(seed, streams[0]))
        self.number = 0
        self.xla = True
        self._slots: Any = None
        self._finished: list[Episode] = []

    @property
    def fusible(self) -> Self | None:
        """This collector: its rollouts are a part of a compiled program wherever `play` is called in one.

        `None` if rollouts are as long as their episodes, which a compiled program cannot know beforehand.
        """
        return self if len(self._lengths) == 1 else None

    def collect(self, policy: Any, greedy: bool = False, *, actor: Callable[..., Any] | None = None) -> Rollout:
        """Play one rollout at the current weights.

        Args:
            policy: see `play`.
            greedy: take the distribution's mode instead of sampling.
            actor: not used here; part of the signature that collectors share.

        Returns:
            A rollout of NumPy arrays whose two leading axes are `shape`; whole episodes may have fewer rows.

        Raises:
            EndlessEpisode: an episode that no limit ends is longer than 20,000 steps.
            FloatingPointError: a reward or an observation is not finite.
            OutputFault: an observation that its space does not have, or a mask that forbids every action.
        """
        # Rollouts of whole episodes need no state in between, so all collectors of the same kind share a program.
        del actor
        if len(self._lengths) > 1:
            played, ends = self._play_in_parts(policy, greedy)
            return self._checked(played, ends)
        kind = (self.functional, self.shape, self.time_limit, self.xla) if self._whole else self
        explores = np.asarray(policy.numbers if isinstance(policy, Explorer) else (), np.float32)
        key = kind, explores.shape
        if key not in policy.programs:
            policy.programs[key] = self._program(policy, explores.shape)
        results = policy.programs[key](self.seed, np.int32(self.number), np.bool_(greedy), explores)
        return self._checked(*map_leaves(lambda x: x.numpy(), results))

    def _checked(self, rollout: Rollout, ends: Ends) -> Rollout:
        self.advance(1, ends)
        require_sound(rollout, self.observation_space, self.shape[1] // self.num_envs)
        return rollout

    def outcomes(self, policy: Any, greedy: bool = False) -> list[Episode]:
        """Play a rollout of whole episodes, and return the episodes by slot. See `GymCollector.outcomes`."""
        rollout = self.collect(policy, greedy)
        self._finished = []
        return whole_episodes(rollout.rewards.astype(np.float64), rollout.terminations, rollout.mask > 0)

    def play(self, policy: Any, slots: Any, seed: Any, greedy: Any = False) -> tuple[Rollout, Any, Ends]:
        """Play one rollout as part of a compiled program.

        Args:
            policy: has `distribution`, `observation_spec`, `action_spec`, `initial_state(N)` and `step(observations, state)`.
            slots: the state of each slot; not used by rollouts of whole episodes.
            seed: int32 (2,).
            greedy: bool (), take the distribution's mode instead of sampling.

        Returns:
            The rollout, without values; the state of each slot after it; and the episodes that ended.
        """
        program = tf.function(
            lambda *arguments: self._play(policy, *arguments), jit_compile=self.xla or None, autograph=False
        )
        rollout, after, ends = program(slots, seed, tf.convert_to_tensor(greedy))
        return rollout, after, ends

    def slots(self, policy: Any) -> Any:
        """Return the variables that hold the state of each slot between two rollouts by steps; at first, of a new episode."""
        if self._slots is None and not self._whole:
            seeds = random.split(random.fold_in(self.seed, -1), self.num_envs)
            self._slots = tf.nest.map_structure(tf.Variable, self._begun(policy, seeds))
        return () if self._whole else self._slots

    def variables(self, policy: Any) -> list[tf.Variable]:
        """Return the variables that a checkpoint keeps besides `state`."""
        return list(tf.nest.flatten(self.slots(policy)))

    def advance(self, count: int, ends: Ends) -> None:
        """Count rollouts that were played, and keep the episodes that ended in them.

        Args:
            count: the number of rollouts.
            ends: NumPy arrays (…, T, N).
        """
        self.number += count
        columns = (ends.returns[ends.ended], ends.lengths[ends.ended], ends.terminated[ends.ended])
        self._finished += map(Episode, *(column.tolist() for column in columns))

    def drain_episodes(self) -> list[Episode]:
        """Return the episodes finished since the last call, by time and then by slot."""
        finished, self._finished = self._finished, []
        return finished

    def state(self) -> dict[str, Any]:
        """Return what another collector needs to continue, besides `variables`: numbers that JSON can hold."""
        return {"rollouts": self.number}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from where `state` was taken, with the `variables` that were saved with it."""
        self.number = state["rollouts"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _program(self, policy: Any, explores: tuple[int, ...]) -> Any:
        slots = self.slots(policy)

        def program(seed: tf.Tensor, number: tf.Tensor, greedy: tf.Tensor, numbers: tf.Tensor) -> tuple[Rollout, Ends]:
            own = random.fold_in(seed, number)
            acting = policy.with_numbers(tf.unstack(numbers)) if explores != (0,) else policy
            rollout, after, ends = self.play(acting, tf.nest.map_structure(tf.identity, slots), own, greedy)
            tf.nest.map_structure(lambda variable, x: variable.assign(x), slots, after)
            return rollout, ends

        numbers = [tf.TensorSpec((), dtype) for dtype in (tf.int32, tf.bool)]
        specs = [tf.TensorSpec((2,), tf.int32), *numbers, tf.TensorSpec(explores, tf.float32)]
        return trace(program, *specs)

    def _play_in_parts(self, policy: Any, greedy: bool) -> tuple[Rollout, Ends]:
        """Play whole episodes some rows at a time until the last one has ended, and pad them to one of the lengths."""
        key = (self.functional, self.shape, self.time_limit, self.xla, LEAST)
        if key not in policy.programs:
            columns = self.shape[1]

            def begin(seed: tf.Tensor, number: tf.Tensor) -> tuple[Any, SlotStates]:
                own = random.fold_in(seed, number)
                return own, self._begun(policy, random.split(random.fold_in(own, -1), columns))

            def part(own: tf.Tensor, slots: Any, going: Any, first: tf.Tensor, greedy: tf.Tensor) -> Any:
                return self._play_rows(policy, slots, own, greedy, LEAST, first, going)

            options: dict[str, Any] = {"jit_compile": self.xla or None, "autograph": False}
            policy.programs[key] = tf.function(begin, **options), tf.function(part, **options)
        begin_program, part_program = policy.programs[key]
        own, slots = begin_program(self.seed, tf.constant(self.number, tf.int32))
        going, before = tf.ones((self.shape[1],), tf.bool), ()
        parts: list[RolloutRow] = []
        most = self.time_limit or MOST_STEPS
        while bool(tf.reduce_any(going)):
            first = len(parts) * LEAST
            if first >= most:
                raise endless(int(np.count_nonzero(going)), self.shape[1])
            if first in self._lengths:
                require_storage(2 * first, self._row_bytes)
            row, slots, going = part_program(own, slots, going, tf.constant(first), tf.constant(greedy))
            played = map_leaves(lambda x: x.numpy(), row)
            before = before if parts else played.rollout.initial_states
            parts.append(played._replace(rollout=played.rollout._replace(initial_states=())))
        rows = next(length for length in self._lengths if length >= len(parts) * LEAST)
        whole = map_arrays(lambda *arrays: lengthened(np.concatenate(arrays), rows), *map(_recorded, parts))
        rollout, ends = whole
        return Rollout(**rollout, initial_states=before), Ends(**ends)

    def _play(self, policy: Any, slots: Any, seed: Any, greedy: Any) -> tuple[Rollout, Any, Ends]:
        if self._whole:
            slots = self._begun(policy, random.split(random.fold_in(seed, -1), self.shape[1]))
        going = tf.ones((self.shape[1],), tf.bool)
        row, after, _ = self._play_rows(policy, slots, seed, greedy, self.shape[0], tf.constant(0), going)
        return row.rollout, () if self._whole else after, row.ends

    def _play_rows(
        self, policy: Any, slots: SlotStates, seed: Any, greedy: Any, rows: int, first: Any, going: Any
    ) -> tuple[RolloutRow, SlotStates, Any]:
        """Play some rows, from row `first` of the rollout on. Return them, the slots after them, and which still play."""
        columns = self.shape[1]
        specs = row_specs(policy, columns)
        tape = [tf.TensorArray(x.dtype, rows, element_shape=x.shape) for x in leaves(specs)]

        def body(t: Any, going: Any, slots: SlotStates, tape: list[Any]) -> tuple[Any, Any, SlotStates, list[Any]]:
            now = random.split(random.fold_in(seed, first + t), _PURPOSES)
            to_act, to_move, to_begin = tf.unstack(random.split(now, columns))
            row, after = self._step(policy, slots, (to_act, to_move), going, greedy)
            if self._whole:
                after, going = choose(going, after, slots), going & ~row.ends.ended
            else:
                after = choose(row.ends.ended, self._begun(policy, to_begin), after)
            written = [array.write(t, x) for array, x in zip(tape, leaves(row), strict=True)]
            return t + 1, going, after, written

        begin = (tf.constant(0), going, slots, tape)
        _, going, after, tape = tf.while_loop(lambda t, going, *_: (t < rows) & tf.reduce_any(going), body, begin)
        played = with_leaves(specs, [array.stack() for array in tape])
        return played._replace(rollout=played.rollout._replace(initial_states=slots.memories)), after, going

    def _begun(self, policy: Any, seeds: Any) -> SlotStates:
        """Return the states of slots that begin episodes, one for each of the seeds, int32 (columns, 2)."""
        columns = self.shape[1]
        states, observations = begin_episodes(self.functional, seeds)
        memories = tf.nest.map_structure(tf.convert_to_tensor, policy.initial_state(columns))
        return SlotStates(
            states, self._stored(observations), tf.zeros((columns,)), tf.zeros((columns,), tf.int32), memories
        )

    def _step(
        self, policy: Any, slots: SlotStates, seeds: Any, going: Any, greedy: Any
    ) -> tuple[RolloutRow, SlotStates]:
        """Return one step, and the states that follow it if no episode ends."""
        to_act, to_move = seeds
        distribution = policy.distribution
        parameters, memories = policy.step(slots.observations, slots.memories)
        actions = tf.where(greedy, distribution.most_likely(parameters), distribution.draw(parameters, to_act))
        taken = distribution.for_environment(actions)
        states, observations, rewards, terminations = move(self.functional, slots.states, taken, to_move)
        observations, rewards = self._stored(observations), tf.where(going, tf.cast(rewards, tf.float32), 0.0)
        # A reward that is not finite stops the update. A compiled program has no other way to report an error.
        rewards = tf.where(self._possible(slots.observations) | ~going, rewards, np.nan)
        terminations, lengths = terminations & going, slots.lengths + 1
        truncations = lengths >= self.time_limit if self.time_limit else tf.zeros_like(terminations)
        truncations &= going
        after = SlotStates(states, observations, slots.returns + rewards, lengths, memories)
        rollout = Rollout(
            observations=slots.observations,
            actions=tf.cast(actions, policy.action_spec.dtype),
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
            final_observations=observations,
            log_probs=distribution.log_prob(parameters, actions),
            mask=tf.cast(going, tf.float32),
        )
        return RolloutRow(rollout, Ends(terminations | truncations, after.returns, lengths, terminations)), after

    def _possible(self, observations: Any) -> Any:
        """Return bool (columns,): the space has the observation, and its mask, if there is one, allows an action."""
        columns = self.shape[1]
        possible, known = tf.ones((columns,), tf.bool), ranges(self.observation_space)
        for name, x in arrays(observations, "observation"):
            if name in known:
                low, high = (tf.cast(bound, x.dtype) for bound in known[name])
                possible &= tf.reduce_all(tf.reshape((x >= low) & (x <= high), (columns, -1)), axis=1)
        if isinstance(observations, dict) and MASK in observations:
            possible &= tf.reduce_any(tf.cast(observations[MASK], tf.bool), axis=-1)
        return possible

    def _stored(self, observations: Any) -> Any:
        """Return observations in the dtypes in which rollouts hold them."""
        return map_arrays(lambda zeros, x: tf.cast(x, zeros.dtype), self._zeros, observations)


def _recorded(row: RolloutRow) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays (T, …) of a rollout and of its ends, by name."""
    rollout = {k: v for k, v in row.rollout._asdict().items() if k not in ("values", "next_values", "initial_states")}
    return rollout, row.ends._asdict()
