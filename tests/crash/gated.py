"""A Hub in memory that stops where a test wants it to, and a client that believes what it gets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from proxy.hub.names import Digest
from proxy.pins.lock import Entry
from proxy.upstream.base import Located
from tests.fakes.memory import FakeHub

PIECE = 8 << 10  # bytes


class GatedHub(FakeHub):
    """Lets so many pieces through, and counts who loads what at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.chunk = PIECE
        self.let: int | None = None  # pieces; None is all
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()
        self.loading: Counter[Digest] = Counter()

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[bytes]:
        key = file.digest if isinstance(file, Entry) else None
        if key is not None:
            self.loading[key] += 1
            assert self.loading[key] == 1, "I6: one transfer at a time"
        try:
            async with aclosing(super().fetch(file, start, stop)) as pieces:
                async for piece in pieces:
                    while self.let == 0:
                        self.waiting.set()
                        await self.go_on.wait()
                    if self.let is not None:
                        self.let -= 1
                    yield piece
        finally:
            if key is not None:
                self.loading[key] -= 1

    def open_gate(self) -> None:
        self.let = None
        self.go_on.set()

    def close_gate(self, pieces: int) -> None:
        self.let = pieces
        self.waiting.clear()
        self.go_on.clear()


@dataclass(eq=False)
class Client:
    """What a client has of a file; it resumes as the Hub's client does, and believes."""

    entry: Entry
    got: bytearray = field(default_factory=bytearray)
    task: asyncio.Task[bool] | None = None
