"""The collector whose environments are stepped by workers, on this machine or on others."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from rlgrad.data import Episode, Rollout
from rlgrad.distributed.cluster import connect, disconnect, import_ray
from rlgrad.distributed.fleet import Fleet
from rlgrad.distributed.merging import merge_episodes, merge_rollouts, merge_states, merge_sums, split_state
from rlgrad.distributed.patience import Pace
from rlgrad.distributed.worker import KerasParts, Order, Played, Work
from rlgrad.distributions.decided import Decided
from rlgrad.environments.ids import find_functional, find_spec, load_class
from rlgrad.environments.infos import Sums
from rlgrad.random import StreamName, stream
from rlgrad.rollouts.base import ActingPolicy, Collector
from rlgrad.rollouts.blocks import Block, blocks
from rlgrad.rollouts.continuation import History
from rlgrad.rollouts.draws import SlotDraws
from rlgrad.rollouts.explorer import Explorer
from rlgrad.rollouts.gym import GymCollector
from rlgrad.rollouts.lengths import size_of_row
from rlgrad.spaces.table import foreign_encoders
from rlgrad.spaces.trees import storage

_log = logging.getLogger("rlgrad")


class RemoteCollector(Collector):
    """Rollouts of `GymCollector`, played by workers: Ray actors that each step a block of the slots.

    Slots are numbered over all workers. Seeds and random numbers belong to slots, so that the rollouts are the same to the bit
    for any number of workers, and the same as those of `GymCollector`, on machines with the same kind of CPU. A worker that
    dies is replaced, and its rollout is played again with the same numbers.

    Args:
        env: an id, or a function or class that makes an environment. Each worker makes its own.
        num_envs: slots of all workers together. Default: 8.
        num_steps: as for `GymCollector`.
        episodes_per_env: likewise.
        max_episode_steps: likewise.
        seed: likewise.
        streams: likewise.
        vectorization_mode: how each worker steps its own slots, `"sync"` or `"async"`; `"auto"` is `"sync"`.
        env_kwargs: as for `GymCollector`.
        wrappers: likewise.
        step_timeout: likewise for `"async"`. With `"sync"` it limits a whole rollout, as if each of its steps took so long.
            `None`: ten times as long as the slowest so far, at least `worker_timeout`.
        workers: their number, at most one for each slot. `None`: as many as this machine has cores.
        ray_address: of the cluster's head, or `"auto"`. `None`: Ray is started on this machine.
        worker_timeout: seconds within which each worker must find a place and be ready, and until which none counts as hanging.

    Raises:
        ValueError: options that contradict each other, or the environment.
        WorkerFault: the workers found no place in time.
        ImportError: Ray is not installed; the message has the command.
    """

    has_streams: ClassVar[bool] = True  # an evaluation plays the episodes that one without workers plays

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
        workers: int | None = None,
        ray_address: str | None = None,
        worker_timeout: float = 60.0,
    ) -> None:
        self.num_envs = 8 if num_envs is None else num_envs
        workers = min(os.cpu_count() or 1, self.num_envs) if workers is None else workers
        _check(env, env_kwargs, vectorization_mode, workers, self.num_envs)
        self._blocks, self._by_steps = blocks(self.num_envs, workers), num_steps is not None
        self.vectorization_mode = "sync" if vectorization_mode == "auto" else vectorization_mode
        options: dict[str, Any] = {
            "num_steps": num_steps,
            "episodes_per_env": episodes_per_env,
            "max_episode_steps": max_episode_steps,
            "seed": seed,
            "streams": streams,
            "env_kwargs": dict(env_kwargs or {}),
            "wrappers": tuple(wrappers),
        }
        probe = GymCollector(
            load_class(env), num_envs=1, vectorization_mode="sync", block=Block(0, 1, self.num_envs), **options
        )
        probe.close()
        self.observation_space, self.action_space = probe.observation_space, probe.action_space
        self.reward_threshold = probe.reward_threshold
        self.shape = (probe.shape[0], probe.shape[1] * self.num_envs)
        in_async = self.vectorization_mode == "async"
        options |= {"vectorization_mode": self.vectorization_mode, "step_timeout": step_timeout if in_async else None}
        spec = find_spec(env) if isinstance(load_class(env), str) else None
        encoders = foreign_encoders(self.observation_space)
        self._works = [Work(env, spec, encoders, options, block) for block in self._blocks]
        steps = self.shape[0] * (1 if self._by_steps else episodes_per_env or 1)
        self._pace = Pace(steps, None if in_async else step_timeout, worker_timeout)
        self._timeout, self._stream = worker_timeout, stream(seed, streams[1])
        self._address, self._connected = ray_address, False
        self._fleet: Fleet | None = None  # made with the first rollout, when all is known that its workers need
        self._states: list[Any] | None = None  # of the workers after the last rollout; `None`: nothing was played
        self._resumes = False  # True: the workers do not stand there yet
        self._changed = False  # True: environments were changed by a call
        self._history = History()
        self._finished: list[Episode] = []
        self._infos: list[Sums] = []
        self._said: set[str] = set()
        self._keras: tuple[Any, Any] | None = None  # the last policy that acts in TensorFlow, and the reference to it

    def collect(
        self, policy: ActingPolicy, greedy: bool = False, *, actor: Callable[..., Any] | None = None
    ) -> Rollout:
        """Play one rollout at the current weights, as `GymCollector` does.

        Args:
            policy: acts.
            greedy: take the distribution's mode instead of sampling.
            actor: not used: workers get the weights.
        """
        played = self._play(Order(*self._portable(policy), greedy))
        rollout = merge_rollouts([each.rollout for each in played if each.rollout is not None])
        self._finished += merge_episodes(played, self._blocks, by_steps=self._by_steps)
        if self._by_steps:
            self._history.add(rollout.actions)
            self._history.keep(self._longest())
        return rollout

    def outcomes(self, policy: ActingPolicy, greedy: bool = False) -> list[Episode]:
        """Play one episode in each slot, and return the episodes by slot."""
        return [
            episode for each in self._play(Order(*self._portable(policy), greedy, True)) for episode in each.episodes
        ]

    def call_envs(self, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> list[Any]:
        """Call a method of every environment, or set an attribute. Running episodes go on."""
        self._changed = True
        return self._workers().call(name, arguments, options, sets)

    def log_infos(self, names: Sequence[str]) -> None:
        """Add up these keys of the infos from now on, for `drain_infos`. Called before the first rollout."""
        self._works = [replace(work, infos=tuple(names)) for work in self._works]

    def drain_infos(self) -> Sums:
        """Return, for each key of `log_infos` that was met since the last call, the sum of its values and their number."""
        sums, self._infos = merge_sums(self._infos), []
        return sums

    def drain_episodes(self) -> list[Episode]:
        """Return the episodes finished since the last call: by time, then slot; or by column if columns are episodes."""
        finished, self._finished = self._finished, []
        return finished

    def begin_anew(self) -> None:
        """End episodes that a resumed run could not repeat, since their environments were changed while they ran."""
        if not self._changed or self._fleet is None or self._states is None:
            return
        states = self._fleet.begin_anew()
        self._states = [new or before for new, before in zip(states, self._states, strict=True)]

    def state(self) -> dict[str, Any]:
        """Return what a collector of as many slots needs to continue from here, this one or a `GymCollector`."""
        if self._states is None:
            draws = SlotDraws(self._stream, range(self.num_envs)).state()
            return {"actions": draws, "episodes": [0] * self.num_envs, "restarts": 0, "running": None}
        if any(state["running"] is None for state in self._states):  # they end together
            return merge_states([{**state, "running": None} for state in self._states], None)
        return merge_states(self._states, self._history.last(self._longest()))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from where `state` was taken, by this class or by `GymCollector`, with any number of workers.

        Raises:
            ValueError: the number of slots differs, or the state is of an older version.
        """
        if len(state["episodes"]) != self.num_envs:
            raise ValueError(
                f"The state is of {len(state['episodes'])} environments, and this collector has {self.num_envs}: a run "
                "continues with as many as it had. For another number begin a new run, with this run's policy as its model."
            )
        self._states, self._resumes = [split_state(state, block) for block in self._blocks], True
        self._history = History()
        if state["running"] is not None:
            self._history.add(state["running"]["actions"])

    @property
    def workers(self) -> list[dict[str, Any]]:
        """Where each worker runs: `pid`, `node` and the kind of `cpu`. Empty before the first rollout."""
        return [] if self._fleet is None else self._fleet.places()

    def close(self) -> None:
        """End the workers, and Ray if this collector has started it."""
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None
        if self._connected:
            self._connected = False
            disconnect()

    def connect(self) -> None:
        """Join the cluster, or start Ray on this machine; once. The first rollout does it otherwise.

        Raises:
            ValueError: no cluster answers at `ray_address`, or rollouts do not fit into its object store.
        """
        if not self._connected and self._fleet is None:
            self._connected = connect(self._address, len(self._blocks), self._bytes_under_way())

    def _workers(self) -> Fleet:
        if self._fleet is None:
            self.connect()
            self._fleet = Fleet(self._works, self._timeout, self._pace)
        return self._fleet

    def _play(self, order: Order) -> list[Played]:
        workers = self._workers()
        ranks = range(len(self._blocks))
        states = [self._state_of(k) if self._resumes else None for k in ranks]
        self._resumes = True  # if this is interrupted, no one knows where the workers stand
        played = workers.play(order, states, self._state_of)
        self._states, self._resumes = [each.state for each in played], False
        self._note(played)
        return played

    def _note(self, played: Sequence[Played]) -> None:
        """Take in what infos said, and log each warning of the workers once."""
        self._infos += [each.infos for each in played]
        for text in (text for each in played for text in each.said):
            if text not in self._said:
                self._said.add(text)
                _log.warning("%s", text)

    def _state_of(self, k: int) -> Any:
        """Return the state of one worker's slots after the last rollout."""
        return split_state(self.state(), self._blocks[k])

    def _longest(self) -> int:
        """Return the number of steps of the longest running episode."""
        running = [state["running"] for state in self._states or ()]
        return max((int(each["lengths"].max()) for each in running if each is not None), default=0)

    def _portable(self, policy: Any) -> tuple[Any, Any]:
        """Return a policy as workers get it, and the distribution that picks actions; `None` for the policy's own."""
        own, distribution = policy, None
        if isinstance(policy, Explorer):
            own, distribution = policy.policy, policy.distribution
            if isinstance(distribution, Decided):
                distribution = Decided(distribution.acting, np.array(distribution.actions))
        if not hasattr(own, "in_numpy"):
            return own, distribution
        if own.mirror is not None:
            return own.in_numpy(), distribution
        if self._keras is None or self._keras[0] is not own:
            self._keras = own, import_ray().put(own)
        return KerasParts((self._keras[1],), [variable.numpy() for variable in own.variables]), distribution

    def _bytes_under_way(self) -> int:
        """Return the bytes of object store that rollouts take at most: those of all workers, and two more."""
        if not self._by_steps:  # as long as the episodes are
            return 0
        slots = max(block.count for block in self._blocks)
        row = size_of_row(storage(self.observation_space, (0,)), slots)
        return 2 * self.shape[0] * (row + 16 * slots) * (len(self._blocks) + 2)


def _check(env: Any, env_kwargs: Any, mode: str, workers: int, num_envs: int) -> None:
    """Raise a ValueError for what workers cannot play."""
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= num_envs:
        raise ValueError(
            f"workers is from 1 to the number of environments, num_envs={num_envs}, which they share; got {workers!r}."
        )
    if isinstance(env, gymnasium.Env | VectorEnv):
        raise ValueError(
            "Each worker makes environments of its own: pass an id or a function that makes one, not an instance."
        )
    if mode not in ("auto", "sync", "async"):
        raise ValueError(
            f'vectorization_mode is "sync" or "async" for workers, since slots that are stepped as a whole have no seeds of '
            f"their own; got {mode!r}."
        )
    if find_functional(load_class(env), dict(env_kwargs or {})) is not None:
        raise ValueError(
            "An environment written in TensorFlow is compiled together with its policy, which is faster than any number of "
            "workers: leave workers out (docs/compiled-environments.md)."
        )
