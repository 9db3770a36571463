"""The channel between a trial's workers and the process that asks for its epochs."""

from __future__ import annotations

import asyncio
from typing import Any

Message = tuple[str, Any]
"""Its kind (`controller`, `epoch`, `fault`, `storage`, `end`) and its content."""


class Mailbox:
    """An actor that passes messages one way and requests for epochs the other; it imports nothing heavy."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._requested = 0
        self._request = asyncio.Condition()

    async def put(self, message: Message) -> None:
        """Send a message; called by the workers and the controller."""
        await self._messages.put(message)

    async def take(self, timeout: float) -> Message | None:
        """The next message, None if there is none within `timeout` seconds; called by the owner."""
        try:
            return await asyncio.wait_for(self._messages.get(), timeout)
        except TimeoutError:
            return None

    async def request_epoch(self, epoch: int) -> None:
        """Ask for an epoch; called by the owner."""
        async with self._request:
            self._requested = max(self._requested, epoch)
            self._request.notify_all()

    async def wait_for_request(self, epoch: int) -> None:
        """Return when an epoch is asked for; called by a worker before it trains the epoch."""
        async with self._request:
            await self._request.wait_for(lambda: self._requested >= epoch)
