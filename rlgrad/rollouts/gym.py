"""The collector of Gymnasium environments: rollouts of so many steps, or so many whole episodes, of each slot."""

import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from gymnasium.vector import AutoresetMode

from rlgrad.data import Episode, Rollout
from rlgrad.environments.environment_options import EnvironmentOptions
from rlgrad.environments.in_turn import InTurn
from rlgrad.environments.infos import InfoSums, Sums
from rlgrad.environments.making import make
from rlgrad.environments.slots import Slots
from rlgrad.random import StreamName, stream
from rlgrad.rollouts.base import ActingPolicy, Collector
from rlgrad.rollouts.blocks import Block
from rlgrad.rollouts.continuation import Continuation
from rlgrad.rollouts.draws import SlotDraws
from rlgrad.rollouts.episodes import whole_episodes
from rlgrad.rollouts.lengths import size_of_row
from rlgrad.rollouts.memory import Memory
from rlgrad.rollouts.player import Player
from rlgrad.rollouts.recording import stored
from rlgrad.rollouts.soundness import check_counts, lay_out, require_room
from rlgrad.rollouts.tape import keep_first_episodes, merge_tapes, outcomes, to_rollout
from rlgrad.spaces.trees import storage

_log = logging.getLogger("rlgrad")


class GymCollector(Collector):
    """Plays a policy in N environment slots and records rollouts.

    By steps (`num_steps`): every rollout is T = `num_steps` steps of each slot, and its unfinished episodes continue in the
    next rollout.

    By whole episodes: every rollout resets all slots, and each slot plays `episodes_per_env` episodes, however long they take,
    so that long and short episodes are met as often as they occur. A column is one episode, padded to the time limit or, where
    that is long or unknown, to a power of two (see `rlgrad.rollouts.lengths`). Column `slot * episodes_per_env + episode` is
    fixed beforehand, whichever slot finishes first. All slots begin their next episode together: a slot that is done rests
    until the others are. Slots of a vector entry point, or of a vector environment that was passed, cannot rest: they are
    stepped without effect, and these steps are no part of the rollout.

    Same seed, same rollouts to the bit, and the same with `"sync"` as with `"async"`: there each episode has a seed of its own,
    a function of the seed, the slot and the episode's number. Each slot's actions have a stream of their own, too, so that
    what it plays does not depend on the slots beside it. Vector entry points, and vector environments that reset
    themselves, are seeded when all slots start. An environment that is passed as an instance must not be stepped elsewhere
    between rollouts by steps, and `close` leaves it open.

    Args:
        env: an id (`"CartPole-v1"`, `"module:Env-v0"`), a `gymnasium.Env` (one slot), a function that makes one, or a
            `gymnasium.vector.VectorEnv` of any autoreset mode.
        num_envs: slots. Default: 8, or 1 for an instance, or the number that a vector environment has.
        num_steps: T, for rollouts by steps.
        episodes_per_env: for rollouts of whole episodes. 1 if neither this nor `num_steps` is given.
        max_episode_steps: episodes are truncated after so many steps. For an id it replaces the specification's limit; an
            environment made elsewhere keeps its own limit too, and the lower one counts.
        seed: an integer ≥ 0.
        streams: the two streams of the seed (`rlgrad.random.stream`) that environments and actions draw from. They may be the
            same one: environments use other children of it than actions.
        vectorization_mode: `"sync"`, `"async"` (one process a slot), `"vector_entry_point"` (an id's own), or `"auto"`: an id's
            own vector entry point if it means the same, else `"sync"`.
        env_kwargs: keyword arguments for the environment's constructor or the function.
        wrappers: around each environment, the first one innermost: names of `gymnasium.wrappers` or `module:Name`, alone or
            with keyword arguments, `"FrameStackObservation(stack_size=4)"`.
        step_timeout: seconds within which all slots must answer to a step or a reset, for `"async"`. `None`: no limit.
        block: which slots of a run these are, if other collectors play the others. `None`: all.

    Attributes:
        vectorization_mode: the mode that `"auto"` became, or `"given"` for a vector environment that was passed.

    Raises:
        ValueError: options that contradict each other, an unknown id, a space that is not supported, or a vector environment
            that does not say how it resets.
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
        block: Block | None = None,
    ) -> None:
        check_counts(
            num_envs=num_envs,
            num_steps=num_steps,
            episodes_per_env=episodes_per_env,
            max_episode_steps=max_episode_steps,
        )
        seeds, draws = stream(seed, streams[0]), stream(seed, streams[1])
        options = EnvironmentOptions(
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
            vectorization_mode=vectorization_mode,
            env_kwargs=env_kwargs or {},
            wrappers=wrappers,
            step_timeout=step_timeout,
        )
        self._environment = make(env, options)
        self._open = True
        vector = self._environment.vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space
        self.num_envs, self.reward_threshold = vector.num_envs, self._environment.reward_threshold
        self.vectorization_mode = self._environment.vectorization_mode
        try:
            empty = self._empty = storage(self.observation_space, (0,))
            block = Block(0, self.num_envs, self.num_envs) if block is None else block
            row_bytes = size_of_row(empty, block.total)
            rows, self._rounds = lay_out(self._environment, num_steps, episodes_per_env, max_episode_steps, row_bytes)
            self._limit = self._environment.time_limit
            self.shape = (rows[-1], self.num_envs * (self._rounds or 1))
            if num_steps is not None:
                require_room(self.shape, size_of_row(empty, self.num_envs))
            self._slots = Slots(self._environment, seeds, block.first)
            self._draws = SlotDraws(draws, block.slots)
            self._player = Player(
                self._slots,
                empty,
                rows,
                self._draws,
                block,
                one_episode=self._rounds > 0,
                limit=self._limit,
            )
        except BaseException:
            self.close()
            raise
        self._continuation = Continuation(self._player)
        self._finished: list[Episode] = []
        self._said = False  # that slots idle
        self._said_missing = False

    @property
    def begins_at_once(self) -> bool:
        """True if the observations acted on after an episode's end are the first ones of the next episode."""
        return not self._slots.resets_late

    @property
    def following(self) -> Any:
        """The stored observations (N, …) that the next rollout acts on first; `None` if that is not known yet."""
        running = self._continuation.observations
        return stored(self._empty, running) if self.begins_at_once and running is not None else None

    def collect(
        self, policy: ActingPolicy, greedy: bool = False, *, actor: Callable[..., Any] | None = None
    ) -> Rollout:
        """Play one rollout at the current weights.

        Args:
            policy: acts. Its `actor()` is called once.
            greedy: take the distribution's mode instead of sampling.
            actor: the result of `policy.actor()`, if the caller has it already, as `Learner.actor` does.

        Returns:
            A rollout whose two leading axes are `shape`, in arrays that no later rollout changes; whole episodes may have fewer
            rows.

        Raises:
            EndlessEpisode: an episode that no limit ends is longer than 20,000 steps.
            FloatingPointError: a reward or an observation is not finite.
            EnvironmentFault: an environment raised, gave what its spaces do not promise, hung or lost its process.
            RuntimeError: the collector is closed.
        """
        self._require_open()
        play = self._collect_episodes if self._rounds else self._continuation.collect
        rollout, finished = play(policy, actor, greedy)
        self._finished += finished
        return rollout

    def outcomes(self, policy: ActingPolicy, greedy: bool = False) -> list[Episode]:
        """Play one episode in each slot, as `collect` does, without keeping its steps. Return the episodes by slot.

        Args:
            policy: acts. Its `actor()` is called once.
            greedy: take the distribution's mode instead of sampling.

        Raises:
            EndlessEpisode: an episode that no limit ends is longer than 20,000 steps.
            FloatingPointError: a reward or an observation is not finite.
            EnvironmentFault: an environment raised, gave what its spaces do not promise, hung or lost its process.
            RuntimeError: the collector is closed.
            ValueError: the collector makes rollouts by steps, or of several episodes for each slot.
        """
        self._require_open()
        if self._rounds != 1:
            raise ValueError("Outcomes are of whole episodes, one for each slot: leave num_steps out.")
        self._player.memory.begin(policy)
        tape, _ = self._player.play(policy, policy.actor(), greedy, self._slots.restart(), record=False)
        return outcomes(tape, self._limit or len(tape.rewards) + 1, columns_per_slot=1)

    def call_envs(self, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> list[Any]:
        """Call a method of every environment, or set an attribute; see `Slots.reach`. Running episodes go on."""
        self._require_open()
        results = self._slots.reach(name, arguments, options, sets)
        self._continuation.note_change()
        return results

    def log_infos(self, names: Sequence[str]) -> None:
        """Add up these keys of the infos from now on, for `drain_infos`."""
        same_step = self._environment.autoreset_mode is AutoresetMode.SAME_STEP
        if isinstance(vector := self._environment.vector.unwrapped, InTurn):
            vector.merges_infos = vector.merges_infos or bool(names)
        self._player.infos = InfoSums(names, same_step) if names else None

    def drain_infos(self) -> Sums:
        """Return, for each key of `log_infos` that was met since the last call, the sum of its values and their number.

        A warning says once, after the first rollout with an info in it, which keys were not met.
        """
        infos = self._player.infos
        if infos is None:
            return {}
        if not self._said_missing and (text := infos.missing()) is not None:
            _log.warning("%s", text)
        self._said_missing = True
        return infos.drain()

    def drain_episodes(self) -> list[Episode]:
        """Return the episodes finished since the last call: by time, then slot; or by column if columns are episodes."""
        finished, self._finished = self._finished, []
        return finished

    def begin_anew(self) -> None:
        """End episodes that a resumed run would take long to replay: those of slots that were seeded together long ago.

        Episodes with a seed each continue, and so do all others if little would have to be replayed: seeding may take an
        environment longer than that.
        """
        self._continuation.begin_anew()

    def state(self) -> dict[str, Any]:
        """Return what another collector needs to continue from here: numbers and arrays."""
        return {
            "actions": self._draws.state(),
            "episodes": self._slots.started,
            "restarts": self._slots.restarts,
            "running": self._continuation.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from where `state` was taken, with the next rollout.

        The running episodes are replayed: they begin again with their seeds, and repeat their actions. If an environment then
        gives other observations than before, a warning says so, and every slot begins a new episode.

        Args:
            state: from `state`, of a collector with the same number of slots.

        Raises:
            ValueError: the number of slots differs.
        """
        if len(state["episodes"]) != self.num_envs:
            raise ValueError(
                f"The state is of {len(state['episodes'])} environments, and this collector has {self.num_envs}: a run "
                "continues with as many as it had. For another number begin a new run, with this run's policy as its model."
            )
        self._draws.restore(state["actions"])
        self._slots.started, self._slots.restarts = list(state["episodes"]), state["restarts"]
        self._continuation.restore(state["running"])

    def close(self) -> None:
        """Close the environments that the collector made; an instance that was passed stays open."""
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

    def _collect_episodes(
        self, policy: ActingPolicy, actor: Callable[..., Any] | None, greedy: bool
    ) -> tuple[Rollout, list[Episode]]:
        act = policy.actor() if actor is None else actor
        tapes, masks = [], []
        for _ in range(self._rounds):
            self._player.memory.begin(policy)
            tape, _ = self._player.play(policy, act, greedy, self._slots.restart())
            tape, mask = keep_first_episodes(tape, self._limit or len(tape.rewards) + 1)
            tapes.append(tape)
            masks.append(mask)
        tape, mask = merge_tapes(tapes, masks)
        initial_states = Memory(mask.shape[1]).of(policy)
        rollout = to_rollout(tape, mask, columns_per_slot=self._rounds, initial_states=initial_states)
        self._say_idle(int(mask.sum()))
        return rollout, whole_episodes(tape.rewards, tape.terminations, mask)

    def _say_idle(self, counted: int) -> None:
        idle = self._player.idle_steps
        if idle and not self._said:
            _log.info(
                "This vector environment steps all slots until the last episode of a rollout has ended: the first one took %s "
                "steps, of which %s after a slot's own end are counted nowhere.",
                f"{counted + idle:,}",
                f"{idle:,}",
            )
            self._said = True
