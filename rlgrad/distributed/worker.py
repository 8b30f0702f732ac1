"""A worker: it plays some slots of a run in a process of its own. It imports TensorFlow only for policies that need it."""

import gc
import logging
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import numpy as np

from rlgrad.core.faults import EnvironmentFault
from rlgrad.data import Episode, Rollout
from rlgrad.distributions.decided import Decided
from rlgrad.environments.ids import load_class
from rlgrad.environments.infos import Sums
from rlgrad.rollouts.blocks import Block
from rlgrad.rollouts.gym import GymCollector
from rlgrad.spaces.table import use_encoders
from rlgrad.spaces.trees import map_arrays

_SLOT = re.compile(r"(?<=in slot )\d+")


def cpu() -> str:
    """Return the name of this machine's kind of CPU, on which the last bits of matrix products depend."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Order(NamedTuple):
    """A stretch of play that a worker is asked for.

    Attributes:
        policy: acts. One that acts in TensorFlow comes as `KerasParts`, so that a worker builds it once.
        distribution: picks the actions; the policy's own, or one that explores.
        greedy: take the mode instead of sampling.
        episodes_only: return episodes without their steps, for evaluations.
    """

    policy: Any
    distribution: Any
    greedy: bool
    episodes_only: bool = False


class Played(NamedTuple):
    """A stretch of play, done.

    Attributes:
        rollout: of its slots; `None` for episodes alone.
        episodes: that ended.
        state: of its collector afterwards, but for the actions of episodes that run, which rollouts hold.
        infos: sums of what infos said.
        said: warnings that were logged.
    """

    rollout: Rollout | None
    episodes: list[Episode]
    state: dict[str, Any]
    infos: Sums
    said: list[str]


class KerasParts(NamedTuple):
    """A policy that acts in TensorFlow.

    Attributes:
        policy: a reference to it, in a tuple, so that Ray does not build it for every call.
        weights: values of its variables.
    """

    policy: tuple[Any]
    weights: list[Any]


@dataclass(frozen=True)
class Work:
    """Everything that a worker is made from.

    Attributes:
        env: for `GymCollector`.
        spec: of an id that the driver registered; `None` for other environments.
        encoders: of observations, besides those of rlgrad.
        options: of `GymCollector`.
        block: which slots of the run.
        infos: keys of the infos to add up.
        calls: of the environments' methods so far, for a worker that takes another's place.
    """

    env: Any
    spec: Any
    encoders: tuple[str, ...]
    options: Mapping[str, Any]
    block: Block
    infos: tuple[str, ...] = ()
    calls: tuple[tuple[Any, ...], ...] = ()


class Worker:
    """Plays some slots of a run. Ray makes one in each process.

    Args:
        work: a pickled `Work`. It is read in `ready`, whose errors reach the driver as they are.
        path: where the driver's modules are found.
    """

    def __init__(self, work: bytes, path: Sequence[str] = ()) -> None:
        self._work, self._path = work, path
        self._collector: Any = None

    def ready(self) -> dict[str, Any]:
        """Make the environments, and return where this worker runs: `pid`, `node` and the kind of `cpu`.

        Raises:
            ValueError: the environment cannot be imported here.
        """
        sys.path += [place for place in self._path if place not in sys.path and Path(place).is_dir()]
        try:
            work: Work = cloudpickle.loads(self._work)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"A worker on {platform.node()} cannot import the environment ({error}): install its package on every machine, "
                "or have its file there at the same path."
            ) from error
        self._make(work)
        return {"pid": os.getpid(), "node": platform.node(), "cpu": cpu()}

    def _make(self, work: Work) -> None:
        self._block = work.block
        if work.spec is not None:
            gymnasium.registry.setdefault(work.spec.id, work.spec)
        use_encoders(work.encoders)
        self._records = _Records()
        log = logging.getLogger("rlgrad")
        log.handlers, log.propagate = [self._records], False
        self._collector = GymCollector(
            load_class(work.env), block=work.block, num_envs=work.block.count, **work.options
        )
        if work.infos:
            self._collector.log_infos(work.infos)
        for call in work.calls:
            self._collector.call_envs(*call)
        self._keras: Any = None
        gc.collect()
        gc.freeze()  # what was imported stays: later collections need not look at it

    def play(self, order: Order, state: Mapping[str, Any] | None) -> Played:
        """Play a rollout.

        Args:
            order: what to play.
            state: to continue from, for a worker that takes another's place. `None`: from where this one stands.

        Raises:
            EnvironmentFault: an environment failed; names the slot of the run.
            FloatingPointError: a number of the environment's is not finite; likewise.
        """
        if self._collector is None:  # `ready` failed: it says why
            self.ready()
        try:
            if state is not None:
                self._collector.restore(_writable(state))
            policy, rollout = self._acting(order), None
            if order.episodes_only:
                episodes: list[Episode] = self._collector.outcomes(policy, order.greedy)
            else:
                rollout = self._collector.collect(policy, order.greedy)
                episodes = self._collector.drain_episodes()
        except (EnvironmentFault, FloatingPointError, ValueError) as error:
            raise self._renumbered(error) from error.__cause__
        return Played(rollout, episodes, self.state(), self._collector.drain_infos(), self._records.drain())

    def begin_anew(self) -> dict[str, Any]:
        """End episodes that a replay could not repeat, and return the state then."""
        self._collector.begin_anew()
        return self.state()

    def call_envs(self, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> list[Any]:
        """Call a method of every environment, or set an attribute."""
        try:
            results: list[Any] = self._collector.call_envs(name, arguments, options, sets)
            return results
        except ValueError as error:
            raise self._renumbered(error) from error.__cause__

    def state(self) -> dict[str, Any]:
        """Return the collector's state without the actions of running episodes, which the rollouts hold."""
        state: dict[str, Any] = self._collector.state()
        if state["running"] is not None:
            del state["running"]["actions"]
        return state

    def _acting(self, order: Order) -> Any:
        policy: Any = order.policy
        if isinstance(policy, KerasParts):
            if self._keras is None:
                self._keras = _built(policy)
            policy = self._keras
            for variable, value in zip(policy.variables, order.policy.weights, strict=True):
                variable.assign(value)
        distribution = order.distribution
        if distribution is None:
            return policy
        if isinstance(distribution, Decided):
            slots = slice(self._block.first, self._block.first + self._block.count)
            distribution = replace(distribution, actions=distribution.actions[slots])
        return Acting(policy, distribution)

    def _renumbered(self, error: Any) -> Any:
        """Return an error whose text numbers slots as the run does."""
        error.args = tuple(
            _SLOT.sub(lambda found: str(int(found[0]) + self._block.first), text) if isinstance(text, str) else text
            for text in error.args
        )
        return error


@dataclass(frozen=True)
class Acting:
    """A policy with another distribution, one that explores."""

    policy: Any
    distribution: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by libraries, before there is a policy
            raise AttributeError(name)
        return getattr(self.policy, name)


def _built(parts: KerasParts) -> Any:
    import ray

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return ray.get(parts.policy[0])


def _writable(state: Any) -> Any:
    """Return a state with arrays of its own: those that Ray gives cannot be written to."""
    return map_arrays(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, state)


class _Records(logging.Handler):
    """Keeps the warnings that are logged, for the driver to log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())

    def drain(self) -> list[str]:
        texts, self._texts = self._texts, []
        return texts
