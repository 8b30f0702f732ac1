"""Rollouts in other processes and on other machines, with Ray Core: `pip install 'rlgrad[ray]'`. See docs/many-machines.md."""

from rlgrad.distributed.asynchronous import AsynchronousCollector
from rlgrad.distributed.collector import RemoteCollector

__all__ = ["AsynchronousCollector", "RemoteCollector"]
