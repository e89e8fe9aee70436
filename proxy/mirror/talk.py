"""Questions and answers over a line, in both directions at once.

    {"ask": n, "do": …, …}     a question
    {"re": n, "said": {…}}     its answer, or "error": {…} instead

The main process asks a worker:     settings (once, first), load, listen, forget, tally, stop
A worker asks the main process:     settle, status, metrics, tally (its own, unasked)
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

from proxy.errors import Busy, MirrorError
from proxy.hub.wire import Json
from proxy.mirror import channel
from proxy.mirror.channel import Channel

log = logging.getLogger(__name__)

Answerer = Callable[[Json], Awaitable[Json]]


class Talk:
    """One end of a line on which both ask and both answer."""

    def __init__(self, line: Channel, answer: Answerer) -> None:
        self._line = line
        self._answer = answer
        self._asked: dict[int, asyncio.Future[Json]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    async def ask(self, do: str, *, patience_s: float, **facts: object) -> Json:
        """The answer. Raises: MirrorError (theirs), Busy (no answer in time, or they are gone)."""
        number = next(self._numbers)
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            if self._ended:
                raise Busy("another process of this mirror ended", 5)
            self._line.send({"ask": number, "do": do, **facts})
            async with asyncio.timeout(patience_s):
                return await answer
        except TimeoutError:
            raise Busy("another process of this mirror does not answer", 5) from None
        finally:
            del self._asked[number]

    def tell(self, do: str, **facts: object) -> None:
        """Ask, and do not care for the answer."""
        self._line.send({"ask": 0, "do": do, **facts})

    async def listen(self) -> None:
        """Answer, and hear answers, until the line ends."""
        try:
            async for message in self._line.messages():
                if "re" in message:
                    self._hear(message)
                else:
                    task = asyncio.create_task(self._reply(message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            self._ended = True
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(Busy("another process of this mirror ended", 5))

    def _hear(self, message: Json) -> None:
        number = message["re"]
        answer = self._asked.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():
            return
        said = message.get("said")
        if isinstance(said, dict):
            answer.set_result(said)
        else:
            answer.set_exception(channel.load_error(message.get("error")))

    async def _reply(self, message: Json) -> None:
        try:
            end: Json = {"said": await self._answer(message)}
        except MirrorError as e:
            end = {"error": channel.dump_error(e)}
        self._line.send({"re": message["ask"], **end})
