"""The workers of a run as Ray actors. What one of them was about to do when it died or hung is done again by another one.

Nothing is lost and nothing is done twice: a rollout is a function of the weights and of the state after the one before it. A
worker keeps both, and the driver keeps the state, too. So the driver repeats a call of a worker that died with that state, on a
new worker, which plays the running episodes again up to where they stood, and then the rollout.
"""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cloudpickle

from rlgrad.core.faults import EnvironmentFault
from rlgrad.distributed.cluster import cpus_per_worker, describe_room, import_ray, result
from rlgrad.distributed.patience import Pace, patience
from rlgrad.distributed.worker import Order, Played, Work, Worker, cpu

_log = logging.getLogger("rlgrad")
_MOST_DEATHS = 5  # of the workers of one block in one rollout


class WorkerFault(EnvironmentFault):
    """A worker or a learner found no place, or died again and again. The message says which."""


class _Asked(NamedTuple):
    """A rollout that a worker was asked for.

    Attributes:
        k: number of the worker.
        begun: time of the request.
        limit: seconds until the worker counts as hanging.
        replayed: steps of running episodes that it plays again first.
    """

    k: int
    begun: float
    limit: float
    replayed: int


class Fleet:
    """Workers, one for each block of slots.

    Args:
        works: what each is made from.
        timeout: seconds within which a worker must find a place and be ready.
        pace: says how long a rollout may take; a worker that takes longer is ended.

    Raises:
        WorkerFault: a worker found no place in time.
        EnvironmentFault, ValueError, …: as `GymCollector` raises them.
    """

    def __init__(self, works: Sequence[Work], timeout: float, pace: Pace) -> None:
        self._ray, self._works, self._timeout, self.pace = import_ray(), list(works), timeout, pace
        actor = self._ray.remote(
            num_cpus=cpus_per_worker(), max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._create: Callable[[Work], Any] = lambda work: actor(Worker).remote(cloudpickle.dumps(work), sys.path)
        self._workers = [self._create(work) for work in self._works]
        self._said_cpu = False
        self._places: dict[int, dict[str, Any]] = {}
        self._renewed: dict[int, Any] = {}  # of workers that took another's place: the call that ends when it is ready
        self._asked: dict[Any, _Asked] = {}  # by call, of those that go on
        self._hung = [0] * len(self._works)  # how often each worker gave no answer to what it is asked
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
        self._asked = {}  # of a rollout that was interrupted
        orders, deaths = self.put(order), [0] * len(self._workers)
        calls = {self.begin(k, orders, state): k for k, state in enumerate(states)}
        played: dict[int, Played] = {}
        while calls:
            call = self.first([*calls])
            k = calls.pop(call)
            found = self.result(call)
            if found is not None:
                played[k] = found
                continue
            _log.warning("%s was lost: its rollout is played again elsewhere, with the same numbers.", self._worker(k))
            deaths[k] += 1
            self.require_hope(k, deaths[k])
            self._replace(k)
            calls[self.begin(k, orders, state_of(k))] = k
        return [played[k] for k in range(len(self._workers))]

    def put(self, order: Order) -> Any:
        """Return a reference to an order, which all workers can be given."""
        return self._ray.put(order)

    def begin(self, k: int, order: Any, state: Any) -> Any:
        """Have one worker play, from a state or from where it stands. Return the call, for `first` and `result`."""
        call = self._workers[k].play.remote(order, state)
        running = None if state is None else state["running"]
        replayed = 0 if running is None else int(running["lengths"].max(initial=0))
        self._asked[call] = _Asked(k, time.monotonic(), self.pace.limit(replayed, self._hung[k]), replayed)
        return call

    def first(self, calls: Sequence[Any]) -> Any:
        """Return the first call that ends. A worker that hangs is ended, and its call with it.

        Raises:
            WorkerFault: all workers were lost, and none found a place in time.
        """
        while True:
            left = max(0.0, min(map(self._left, calls)))
            done, _ = self._ray.wait([*calls], num_returns=1, timeout=min(left, self._timeout))
            if done:
                return done[0]
            for call in calls:
                if self._left(call) <= 0:
                    self._end(call)
                    return call
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
        results = self._answers(calls)  # of a worker that was lost the next rollout makes another one
        self._works = [replace(work, calls=(*work.calls, (name, arguments, options, sets))) for work in self._works]
        return [result for part in results for result in (part or [])]

    def begin_anew(self) -> list[Any]:
        """Have all workers end episodes that a replay could not repeat. Return their states; `None` of one that was lost."""
        return self._answers([worker.begin_anew.remote() for worker in self._workers])

    def places(self) -> list[dict[str, Any]]:
        """Return where the workers run: what each `ready` returned."""
        return [self._places[k] for k in range(len(self._workers))]

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers = []

    def result(self, call: Any) -> Any:
        """Return the result of a call; `None` if its worker was lost or ended. Raise what the worker raised."""
        asked = self._asked.pop(call, None)
        if asked is None:  # it was ended
            return None
        found: Played | None = result(call)
        if found is not None:
            self._hung[asked.k] = 0
            self.pace.note(time.monotonic() - asked.begun, asked.replayed + self._steps(asked.k, found))
        return found

    def _steps(self, k: int, played: Played) -> float:
        """Return the steps that a worker has played, of each of its slots on average."""
        work = self._works[k]
        if work.options["num_steps"] is not None:
            return float(work.options["num_steps"])
        return sum(episode.length for episode in played.episodes) / work.block.count

    def _left(self, call: Any) -> float:
        """Return the seconds that a worker has left to answer. One that took another's place has all until it is ready."""
        asked = self._asked[call]
        ready = self._renewed.get(asked.k)
        if ready is not None and not self._ray.wait([ready], timeout=0)[0]:
            self._asked[call] = asked = asked._replace(begun=time.monotonic())
        return asked.begun + asked.limit - time.monotonic()

    def _end(self, call: Any) -> None:
        """End a worker that did not answer."""
        asked = self._asked.pop(call)
        self._hung[asked.k] += 1
        _log.warning("%s did not answer within %g s, and is ended.", self._worker(asked.k), asked.limit)
        self._ray.kill(self._workers[asked.k])

    def _answers(self, calls: Sequence[Any]) -> list[Any]:
        """Return the results of a call of each worker; `None` of one that was lost, or that did not answer, which is ended."""
        before = max((asked.limit for asked in self._asked.values()), default=0.0)  # what they are asked first
        limit = before + patience(self._timeout, 0.0, 0)
        done, _ = self._ray.wait([*calls], num_returns=len(calls), timeout=limit)
        for k, call in enumerate(calls):
            if call not in done:
                _log.warning("%s did not answer within %g s, and is ended.", self._worker(k), limit)
                self._ray.kill(self._workers[k])
        return [result(call) if call in done else None for call in calls]

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
            place = result(done[0])
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
                "environment may hang, end its process, or take more memory than its machine has. The last checkpoint stands."
            )

    def _worker(self, k: int) -> str:
        return f"Worker {k + 1} of {len(self._works)} ({self._slots(k)})"

    def _slots(self, k: int) -> str:
        block = self._works[k].block
        last = block.first + block.count - 1
        return f"slot {block.first}" if block.count == 1 else f"slots {block.first} to {last}"
