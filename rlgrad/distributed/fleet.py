"""The workers of a run as Ray actors. What one of them was about to do when it died is done again by another one.

Nothing is lost and nothing is done twice: a rollout is a function of the weights and of the state after the one before it. A
worker keeps both, and the driver keeps the state, too. So the driver repeats a call of a worker that died with that state, on a
new worker, which plays the running episodes again up to where they stood, and then the rollout.
"""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle

from rlgrad.core.faults import EnvironmentFault
from rlgrad.distributed.cluster import cpus_per_worker, describe_room, import_ray, result
from rlgrad.distributed.worker import Order, Played, Work, Worker, cpu

_log = logging.getLogger("rlgrad")
_MOST_DEATHS = 5  # of the workers of one block in one rollout


class WorkerFault(EnvironmentFault):
    """A worker or a learner found no place, or died again and again. The message says which."""


class Fleet:
    """Workers, one for each block of slots.

    Args:
        works: what each is made from.
        timeout: seconds within which a worker must find a place and be ready.
        limit: seconds that a rollout may take; a worker that takes longer is replaced. `None`: there is no limit.

    Raises:
        WorkerFault: a worker found no place in time.
        EnvironmentFault, ValueError, …: as `GymCollector` raises them.
    """

    def __init__(self, works: Sequence[Work], timeout: float, limit: float | None) -> None:
        self._ray, self._works, self._timeout, self._limit = import_ray(), list(works), timeout, limit
        actor = self._ray.remote(
            num_cpus=cpus_per_worker(), max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._create: Callable[[Work], Any] = lambda work: actor(Worker).remote(cloudpickle.dumps(work), sys.path)
        self._workers = [self._create(work) for work in self._works]
        self._said_cpu = False
        self._places: dict[int, dict[str, Any]] = {}
        self._renewed: dict[int, Any] = {}  # of workers that took another's place: the call that ends when it is ready
        try:
            self._await(range(len(works)))
        except BaseException:
            self.close()
            raise

    def play(self, order: Order, states: Sequence[Any], state_of: Callable[[int], Any]) -> list[Played]:
        """Have all workers play one rollout, and return what each played.

        Args:
            order: what to play.
            states: for each worker, the state to continue from, or `None` where it stands there.
            state_of: returns the state before this rollout, of a worker that died.
        """
        orders = self.put(order)
        begun, deaths = time.monotonic(), [0] * len(self._workers)
        asked = zip(self._workers, states, strict=True)
        calls = {worker.play.remote(orders, state): k for k, (worker, state) in enumerate(asked)}
        played: dict[int, Played] = {}
        while calls:
            left = None if self._limit is None else max(0.0, begun + self._limit - time.monotonic())
            done, _ = self._ray.wait([*calls], num_returns=1, timeout=left)
            for call in done or [*calls]:
                k = calls.pop(call)
                if done:
                    found = self.result(call)
                    if found is not None:
                        played[k] = found
                        continue
                    self._say(k, "was lost")
                else:
                    self._say(k, f"did not answer within {self._limit:g} s")
                deaths[k] += 1
                self.require_hope(k, deaths[k])
                self._replace(k)
                calls[self._workers[k].play.remote(orders, state_of(k))] = k
                begun = time.monotonic()
        return [played[k] for k in range(len(self._workers))]

    def put(self, order: Order) -> Any:
        """Return a reference to an order, which all workers can be given."""
        return self._ray.put(order)

    def begin(self, k: int, order: Any, state: Any) -> Any:
        """Have one worker play, from a state or from where it stands. Return the call, for `first` and `result`."""
        return self._workers[k].play.remote(order, state)

    def first(self, calls: Sequence[Any]) -> Any:
        """Return the first call that ends.

        Raises:
            WorkerFault: all workers were lost, and none found a place in time.
        """
        while True:
            done, _ = self._ray.wait([*calls], num_returns=1, timeout=self._timeout)
            if done:
                return done[0]
            placed, _ = self._ray.wait([*self._renewed.values()], timeout=0) if self._renewed else ([], [])
            if len(self._renewed) == len(self._workers) and not placed:
                raise WorkerFault(self._no_place([*self._renewed]))

    def renew(self, k: int) -> None:
        """Put a worker in the place of one that was lost, without waiting for it."""
        _log.warning("%s was lost, with the rollout that it played: another one takes its place.", self._worker(k))
        self._ray.kill(self._workers[k])
        self._workers[k] = self._create(self._works[k])
        self._renewed[k] = self._workers[k].ready.remote()

    def call(self, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> list[Any]:
        """Call a method of every environment. Workers that are made later get the call, too."""
        calls = [worker.call_envs.remote(name, arguments, options, sets) for worker in self._workers]
        results = [self.result(call) for call in calls]  # of a worker that died the next rollout makes another one
        self._works = [replace(work, calls=(*work.calls, (name, arguments, options, sets))) for work in self._works]
        return [result for part in results for result in (part or [])]

    def begin_anew(self) -> list[Any]:
        """Have all workers end episodes that a replay could not repeat, and return their states; `None` of one that died."""
        return [self.result(call) for call in [worker.begin_anew.remote() for worker in self._workers]]

    def places(self) -> list[dict[str, Any]]:
        """Return where the workers run: what each `ready` returned."""
        return [self._places[k] for k in range(len(self._workers))]

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers = []

    def result(self, call: Any) -> Any:
        """Return the result of a call; `None` if its worker was lost. Raise what the worker raised."""
        return result(call)

    def _replace(self, k: int) -> None:
        self._ray.kill(self._workers[k])
        self._workers[k] = self._create(self._works[k])
        self._await([k])

    def _await(self, ranks: Sequence[int]) -> None:
        """Wait until some workers are ready, and create those again that die meanwhile."""
        end, deaths = time.monotonic() + self._timeout, 0
        waiting = {self._workers[k].ready.remote(): k for k in ranks}
        while waiting:
            done, _ = self._ray.wait([*waiting], num_returns=1, timeout=max(0.0, end - time.monotonic()))
            if not done:
                raise WorkerFault(self._no_place([*waiting.values()]))
            k = waiting.pop(done[0])
            place = self.result(done[0])
            if place is not None:
                self._places[k] = place
                self._compare(place)
            else:
                deaths += 1
                self.require_hope(k, deaths)
                self._workers[k] = self._create(self._works[k])
                waiting[self._workers[k].ready.remote()] = k

    def _compare(self, place: dict[str, Any]) -> None:
        """Warn once if a worker runs on another kind of CPU than this process."""
        if place["cpu"] != cpu() and not self._said_cpu:
            self._said_cpu = True
            _log.warning(
                "Workers on %s have another kind of CPU (%s) than this machine (%s), which may round the last digits of their "
                "actions' probabilities in another way: the run is then not, to the bit, the one without workers.",
                place["node"],
                place["cpu"],
                cpu(),
            )

    def _no_place(self, ranks: Sequence[int]) -> str:
        which = ", ".join(f"{k + 1} ({self._slots(k)})" for k in ranks)
        return (
            f"{len(ranks)} of {len(self._works)} workers were not ready within {self._timeout:g} s: number {which}. Each needs "
            f"one CPU, and {describe_room(self._ray)}. Add a node, lower --workers, or wait longer with --worker-timeout; "
            "checkpoints stand, and rlgrad resume continues from the last."
        )

    def require_hope(self, k: int, deaths: int) -> None:
        """Raise a WorkerFault if one worker died too often in a row."""
        if deaths >= _MOST_DEATHS:
            raise WorkerFault(
                f"Worker {k + 1} of {len(self._works)} was lost {deaths} times in one rollout, with {self._slots(k)}: an "
                "environment may end its process, or take more memory than its machine has. The last checkpoint stands."
            )

    def _say(self, k: int, what: str) -> None:
        _log.warning("%s %s: its rollout is played again elsewhere, with the same numbers.", self._worker(k), what)

    def _worker(self, k: int) -> str:
        return f"Worker {k + 1} of {len(self._works)} ({self._slots(k)})"

    def _slots(self, k: int) -> str:
        block = self._works[k].block
        last = block.first + block.count - 1
        return f"slot {block.first}" if block.count == 1 else f"slots {block.first} to {last}"
