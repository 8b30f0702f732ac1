"""Rollouts and gradients in other processes, here or elsewhere, with Ray Core (`rlgrad[ray]`). See docs/many-machines.md."""

from rlgrad.distributed.asynchronous import AsynchronousCollector
from rlgrad.distributed.collector import RemoteCollector
from rlgrad.distributed.learners import Learners

__all__ = ["AsynchronousCollector", "Learners", "RemoteCollector"]
