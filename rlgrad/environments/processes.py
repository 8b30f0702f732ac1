"""Environments in a process each: Gymnasium's `AsyncVectorEnv`, with a limit to waiting, and an answer to lost processes."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

from gymnasium.error import AlreadyPendingCallError
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from rlgrad.core.faults import Blame
from rlgrad.environments.guarding import Guarded

_LOST = (EOFError, ConnectionError, AlreadyPendingCallError)
_GRACE = 30.0  # seconds that a process lives on after SIGTERM
_PATIENCE = 1.0  # seconds that a process has to end after it was told to


def _end_later(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM in an environment's process.

    systemd and Slurm send it to all processes of a run at once. The run then completes its update, saves, and closes its
    environments, for which it needs them a little longer.
    """
    signal.setitimer(signal.ITIMER_REAL, _GRACE)  # SIGALRM ends the process, if the run has not by then


class Processes(AsyncVectorEnv):
    """One process a slot. Closing ends all of them, even if one is lost or busy.

    Args:
        create: makes one environment; called in each process.
        num_envs: the number of processes.
        mask_width: numbers in `info["action_mask"]`. `None`: there is no such mask.
        step_timeout: seconds within which all slots must answer to a step or a reset. `None`: no limit.

    Raises:
        Blame: from `reset` and `step`: a process was lost or gave no answer in time. All processes have been ended then.
    """

    def __init__(
        self,
        create: Callable[[], Any],
        num_envs: int,
        mask_width: int | None = None,
        step_timeout: float | None = None,
    ) -> None:
        self.step_timeout = step_timeout
        parent = os.getpid()

        def guarded(slot: int) -> Callable[[], Guarded]:
            def make() -> Guarded:
                if os.getpid() != parent:  # Ctrl-C reaches all processes; the run alone decides what follows
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    signal.signal(signal.SIGTERM, _end_later)
                return Guarded(create(), slot, mask_width, remote=True)

            return make

        try:
            super().__init__(
                [guarded(slot) for slot in range(num_envs)], copy=False, autoreset_mode=AutoresetMode.DISABLED
            )
        except (EOFError, ConnectionError) as error:
            blame = self._lost()
            self.end()
            raise blame.fault("while its environment was made") from error

    def reset_wait(self, timeout: float | None = None) -> Any:
        """Wait for the resets, at most `step_timeout` seconds."""
        return super().reset_wait(self.step_timeout if timeout is None else timeout)

    def step_wait(self, timeout: float | None = None) -> Any:
        """Wait for the steps, at most `step_timeout` seconds."""
        return super().step_wait(self.step_timeout if timeout is None else timeout)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Reset the environments."""
        return self._answered(super().reset, seed=seed, options=options)

    def step(self, actions: Any) -> Any:
        """Step the environments."""
        return self._answered(super().step, actions)

    def rest(self, resting: list[bool]) -> None:
        """Say which environments are left alone from now on. See `Guarded`."""
        self._answered(self.set_attr, "resting", resting)

    def end(self) -> None:
        """End all processes, busy ones too. The environments cannot be used afterwards."""
        self.closed = True
        for process in self.processes:
            process.kill()  # they answer to SIGTERM late
        patience = time.monotonic() + _PATIENCE
        for process in self.processes:
            process.join(max(0.0, patience - time.monotonic()))
        for pipe in self.parent_pipes:
            if pipe is not None:
                pipe.close()

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Let the environments close. End all processes if one does not answer in time, or is lost."""
        if terminate:
            self.end()
            return
        try:
            super().close_extras(_PATIENCE if timeout is None else timeout)
        except (*_LOST, OSError):
            self.end()

    def _answered(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except multiprocessing.TimeoutError as error:
            silent = [slot for slot, pipe in enumerate(self.parent_pipes) if pipe is not None and not pipe.poll(0)]
            self.end()
            rest = f" Neither did slots {', '.join(map(str, silent[1:]))}." if silent[1:] else ""
            how = f" within step_timeout={self.step_timeout:g} s; the environments' processes were ended.{rest}"
            raise Blame(silent[0] if silent else None, "gave no answer", how) from error
        except _LOST as error:
            blame = self._lost()
            self.end()
            raise blame from error

    def _lost(self) -> Blame:
        """Return the slot whose process has ended, and how it ended."""
        ended = wait([process.sentinel for process in self.processes], timeout=_PATIENCE)
        for slot, process in enumerate(self.processes):
            if process.sentinel in ended:
                process.join()
                code = process.exitcode or 0
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
                return Blame(slot, "lost its process", f" ({how}); the other environments' processes were ended.")
        return Blame(None, "was interrupted", "; the environments' processes were ended.")
