"""Rollouts as they come: workers play on while the learner learns, with weights that lag behind its own."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlgrad.data import Rollout
from rlgrad.distributed.collector import RemoteCollector
from rlgrad.distributed.worker import Order, Played
from rlgrad.metrics import LAG_METRICS
from rlgrad.rollouts.base import ActingPolicy
from rlgrad.spaces.trees import map_arrays


class AsynchronousCollector(RemoteCollector):
    """The rollout of whichever worker is ready first, each of one worker's slots.

    The lag of a rollout is the number of updates between the weights that played it and those that it moves. Rollouts that lag
    more than `max_lag` updates are dropped. A worker that dies or hangs costs what it was playing, and the others go on. Runs
    are not reproducible: which rollout comes first depends on the machines.

    Args:
        env: as for `RemoteCollector`.
        max_lag: the largest lag. `None`: four times the number of workers.
        options: those of `RemoteCollector`; `num_envs` is shared by the workers without remainder.

    Attributes:
        num_envs: of one worker, which a rollout has.

    Raises:
        ValueError: as `RemoteCollector`; or the workers' shares of the environments differ.
    """

    def __init__(self, env: Any, *, max_lag: int | None = None, **options: Any) -> None:
        super().__init__(env, **options)
        sizes = {block.count for block in self._blocks}
        if len(sizes) > 1:
            raise ValueError(
                f"Asynchronous workers have as many environments each, so that all rollouts have one shape: num_envs="
                f"{self.num_envs} is no multiple of workers={len(self._blocks)}."
            )
        self.shape = (self.shape[0], self.shape[1] // len(self._blocks))
        self.num_envs //= len(self._blocks)
        self.max_lag = 4 * len(self._blocks) if max_lag is None else max_lag
        self._version = 0  # number of the weights: one more with each rollout
        self._idle = set(range(len(self._blocks)))
        self._calls: dict[Any, tuple[int, int]] = {}  # of workers that play: rank, and the version that it acts with
        self._known: list[Any] = [None] * len(self._blocks)  # state of each worker after its last rollout
        self._deaths = [0] * len(self._blocks)  # of each worker since its last rollout
        self._fresh: set[int] = set()  # workers that do not stand there
        self._lag, self._dropped, self._lost = 0, 0, 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `measures` returns."""
        return LAG_METRICS

    def measures(self) -> dict[str, float]:
        """Return the lag of the last rollout, and how many were dropped or lost so far."""
        numbers = self._lag, self._dropped, self._lost
        return dict(zip(self.metrics, map(float, numbers), strict=True))

    def collect(
        self, policy: ActingPolicy, greedy: bool = False, *, actor: Callable[..., Any] | None = None
    ) -> Rollout:
        """Return the next rollout that is not too old. Workers that wait begin another one at the current weights.

        Args:
            policy: acts.
            greedy: take the distribution's mode instead of sampling.
            actor: not used: workers get the weights.
        """
        fleet = self._workers()
        order = fleet.put(Order(*self._portable(policy), greedy))
        while True:
            for k in self._idle:
                self._calls[fleet.begin(k, order, self._known[k] if k in self._fresh else None)] = k, self._version
            self._idle, self._fresh = set(), set()
            call = fleet.first([*self._calls])
            k, version = self._calls.pop(call)
            self._idle.add(k)
            played: Played | None = fleet.result(call)
            if played is None:
                self._lost += 1
                self._deaths[k] += 1
                fleet.require_hope(k, self._deaths[k])
                fleet.renew(k)
                self._fresh.add(k)
                continue
            self._deaths[k] = 0
            self._known[k] = {**played.state, "running": None}
            self._note([played])
            if self._version - version > self.max_lag:
                self._dropped += 1
                continue
            self._lag = self._version - version
            self._version += 1
            self._finished += played.episodes
            assert played.rollout is not None
            return Rollout(*map_arrays(np.array, played.rollout))  # the object store's own arrays cannot be written to

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs: which episodes were begun. It begins others, at the weights of the checkpoint."""
        return {"asynchronous": list(self._known)}

    def begin_anew(self) -> None:
        """Do nothing: a resumed run begins new episodes in any case."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with episodes that were not begun before.

        Raises:
            ValueError: the run had another number of workers, or waited for all of them.
        """
        known = state.get("asynchronous")
        if known is None or len(known) != len(self._blocks):
            raise ValueError(
                "An asynchronous run continues with as many workers as it had, and a run that waits for its workers as such: "
                "leave workers and asynchronous as they were."
            )
        self._known, self._fresh = list(known), {k for k, state in enumerate(known) if state is not None}
