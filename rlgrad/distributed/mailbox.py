"""A mailbox: tasks tell a number while they work, and wait for an answer. It imports no TensorFlow."""

import asyncio
from typing import NamedTuple


class Told(NamedTuple):
    """A trial's messages while it trains.

    Attributes:
        number: of the trial.
        look: at which this was met.
        value: the return.
        pid: of its process.
    """

    number: int
    look: int
    value: float
    pid: int


class Mailbox:
    """Where trials tell their returns and wait for answers. An asynchronous actor: all of its calls wait at the same time."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[Told] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[bool]] = {}

    async def tell(self, told: Told) -> bool:
        """Tell a return, and return the answer: True if the trial is to end."""
        self._waiting[told.number] = asyncio.get_running_loop().create_future()
        await self._letters.put(told)
        return await self._waiting[told.number]

    async def next(self) -> Told:
        """Return the next return that a trial tells."""
        return await self._letters.get()

    async def answer(self, number: int, ends: bool) -> None:
        """Answer a trial that waits."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(ends)
