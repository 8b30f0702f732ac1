"""Learners that share the rows of each step: this process, and Ray actors beside it.

A learner has no state: what it answers follows from the weights and the rows that it is asked about. One that dies or hangs is
replaced, and is asked the same again, with the same numbers. All have about as many rows, so one hangs if it takes many times
as long as this process took for its own share.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from rlgrad.distributed.cluster import connect, cpus_per_worker, describe_room, disconnect, import_ray, reserve, result
from rlgrad.distributed.fleet import WorkerFault
from rlgrad.distributed.patience import patience
from rlgrad.distributed.share import Arrays, Share

_log = logging.getLogger("rlgrad")
_MOST_DEATHS = 5  # of one learner in one step


class Learners:
    """The learners of a run, of which this process is the first: `rlgrad.learning.spreading.Ranks`.

    Args:
        count: of learners, this process included.
        ray_address: of the cluster's head, or `"auto"`. `None`: Ray is started on this machine.
        timeout: seconds within which each learner must find a place and be ready, and until which none counts as hanging.
        device: that the others compute on.

    Raises:
        ValueError: the count is below 2.
        WorkerFault: in a step, a learner found no place in time, or died again and again.
    """

    def __init__(
        self, count: int, *, ray_address: str | None = None, timeout: float = 60.0, device: str = "CPU:0"
    ) -> None:
        if count < 2:
            raise ValueError(f"count is at least 2, this process and another one; got {count}.")
        self.count, self._address, self._timeout, self._device = count, ray_address, timeout, device
        self.patience = timeout  # seconds until which none counts as hanging
        self._asked_at = 0.0
        self._served: Any = None
        self._bytes, self._connected = 0, False
        self._actors: list[Any] = []
        self._places: dict[int, dict[str, Any]] = {}
        self._asked: Any = None  # of the current step: the question, the weights, and the shares
        self._calls: list[Any] = []

    @property
    def places(self) -> list[dict[str, Any]]:
        """Where each of the others runs: `pid` and `node`. Empty before the first step."""
        return [self._places[k] for k in range(len(self._actors))]

    def serve(self, linearize: Callable[..., Any], policy: Any) -> None:
        """Take what the learners answer by, and for which policy."""
        self._served = linearize, policy, self._device
        weights = sum(4 * math.prod(variable.shape) for variable in policy.variables)
        self._bytes = 2 * weights * self.count  # the weights, and a gradient of each
        reserve(self._bytes)

    def begin(self, asked: Any, weights: Arrays, shares: Sequence[Arrays]) -> None:
        """Have each of the other learners compute the outputs of its share."""
        if not self._actors:
            self._start()
        ray = import_ray()
        self._asked_at = time.monotonic()
        self._asked = asked, ray.put(list(weights)), [[*map(_owned, share)] for share in shares]
        self._calls = [self._ask(k) for k in range(self.count - 1)]

    def outputs(self) -> list[Arrays]:
        """Return the outputs that each of the others found."""
        own = time.monotonic() - self._asked_at
        found = [self._answer(k, call, self._ask, own) for k, call in enumerate(self._calls)]
        self._asked_at = time.monotonic()
        return found

    def gradients(self, names: Sequence[str], credits: Sequence[Arrays]) -> list[Arrays]:
        """Return the gradient that each of the others finds for its part of the credits."""
        own = time.monotonic() - self._asked_at
        credits = [[*map(_owned, part)] for part in credits]

        def ask(k: int) -> Any:
            return self._actors[k].gradient.remote(names, credits[k])

        def ask_all(k: int) -> Any:
            self._ask(k)  # calls of an actor are made in order
            return ask(k)

        calls = [ask(k) for k in range(self.count - 1)]
        return [self._answer(k, call, ask_all, own) for k, call in enumerate(calls)]

    def close(self) -> None:
        """End the other learners, and Ray if they have started it."""
        for actor in self._actors:
            import_ray().kill(actor)
        reserve(-self._bytes)
        self._actors, self._calls, self._asked, self._bytes = [], [], None, 0
        if self._connected:
            self._connected = False
            disconnect()

    def _ask(self, k: int) -> Any:
        asked, weights, shares = self._asked
        return self._actors[k].outputs.remote(asked, weights, shares[k])

    def _answer(self, k: int, call: Any, again: Callable[[int], Any], own: float) -> Any:
        """Return the result of a call; of one whose learner was lost or hangs, that of another learner, asked the same.

        Args:
            k: number of the learner.
            call: to it.
            again: asks another one.
            own: seconds that this process took for its share.
        """
        for lost in range(_MOST_DEATHS):
            limit = patience(own, self.patience, lost)
            done, _ = import_ray().wait([call], timeout=limit)
            found = result(call) if done else None
            if found is not None:
                return found
            how = "was lost" if done else f"did not answer within {limit:.3g} s"
            _log.warning("%s %s: another one computes its share, with the same numbers.", self._learner(k), how)
            import_ray().kill(self._actors[k])
            self._actors[k] = self._create()
            self._await([k])
            call = again(k)
        raise WorkerFault(
            f"{self._learner(k)} was lost {_MOST_DEATHS} times in one step: it may hang, or take more memory than its machine "
            "has. The last checkpoint stands."
        )

    def _start(self) -> None:
        self._connected = connect(self._address, self.count - 1, self._bytes)
        actor = import_ray().remote(
            num_cpus=cpus_per_worker(), max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        work = cloudpickle.dumps(self._served)
        self._create: Callable[[], Any] = lambda: actor(Share).remote(work, sys.path)
        self._actors = [self._create() for _ in range(self.count - 1)]
        self._await(range(self.count - 1))

    def _await(self, ranks: Sequence[int]) -> None:
        """Wait until some learners are ready. One that dies meanwhile is noticed when it is asked."""
        waiting = {self._actors[k].ready.remote(): k for k in ranks}
        done, late = import_ray().wait([*waiting], num_returns=len(waiting), timeout=self._timeout)
        if late:
            which = ", ".join(str(waiting[call] + 2) for call in late)
            raise WorkerFault(
                f"{len(late)} of {self.count} learners were not ready within {self._timeout:g} s: number {which}. Each needs "
                f"one CPU, and {describe_room(import_ray())}. Add a node, lower --learners, or wait longer with "
                "--worker-timeout; checkpoints stand, and rlgrad resume continues from the last."
            )
        for call in done:
            self._places[waiting[call]] = result(call) or {}

    def _learner(self, k: int) -> str:
        return f"Learner {k + 2} of {self.count}"


def _owned(array: Any) -> Any:
    """Return an array that outlives the program that it was passed from."""
    return array.copy()
