"""Between a trial's workers and whoever asked for its epochs: an actor that imports nothing heavy."""

from __future__ import annotations

import asyncio
from typing import Any

Message = tuple[str, Any]
"""Its kind (`controller`, `epoch`, `fault`, `storage`, `end`) and what it brings."""


class Mailbox:
    """Letters go one way, the wish for another epoch the other."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[Message] = asyncio.Queue()
        self._wanted = 0
        self._asked = asyncio.Condition()

    async def put(self, letter: Message) -> None:
        """From the workers or the controller."""
        await self._letters.put(letter)

    async def take(self, timeout: float) -> Message | None:
        """For the owner; None where nothing came in `timeout` seconds."""
        try:
            return await asyncio.wait_for(self._letters.get(), timeout)
        except TimeoutError:
            return None

    async def want(self, epoch: int) -> None:
        """The owner asks for this epoch."""
        async with self._asked:
            self._wanted = max(self._wanted, epoch)
            self._asked.notify_all()

    async def until_wanted(self, epoch: int) -> None:
        """A worker waits here before it trains an epoch."""
        async with self._asked:
            await self._asked.wait_for(lambda: self._wanted >= epoch)
