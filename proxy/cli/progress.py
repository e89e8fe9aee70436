"""How far long work is: a bar on a terminal, a line now and then elsewhere, events for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from proxy.cli import console

_LINE_S = 1.0  # between two lines
_STEP = 0.1  # of the whole, between two lines
_ANYWAY_S = 10.0  # a line comes after this time, however slow it goes

Clock = Callable[[], float]


class Meter:
    """Progress of some files, on stderr; nothing at all if `silent` (stdout speaks JSON then)."""

    def __init__(
        self, what: str, *, silent: bool, talk: Console | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._what = what
        self._silent = silent
        self._console = talk or console.talk()
        self._clock = clock
        self._bars: Progress | None = None
        self._files = self._bytes = 0
        self._held = 0  # bytes that were there at the start
        self._began = self._last = clock()
        self._last_part = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def plan(self, files: int, size: int, held_files: int = 0, held_bytes: int = 0) -> None:
        """What there is to do; `held_*` of it is done already."""
        self._files, self._bytes, self._held = files, size, held_bytes
        self._began = self._last = self._clock()
        self._last_part = held_bytes / size if size else 0.0
        if self._silent or not self._console.is_terminal or held_files == files:
            return
        self.close()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[files]}/{task.fields[of]} files"),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._bars.start()
        self._bars.add_task(
            self._what, total=size, completed=held_bytes, files=held_files, of=files
        )

    def update(self, done_files: int, done_bytes: int) -> None:
        if self._silent or not self._files:
            return
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=done_bytes, files=done_files)
        elif done_files < self._files:
            self._line(done_files, done_bytes)

    def say(self, text: str, style: str = "") -> None:
        """A line that does not disturb the bar."""
        if not self._silent:
            self._console.print(Text(console.clean(text), style=style))

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _line(self, done_files: int, done_bytes: int) -> None:
        now = self._clock()
        waited = now - self._last
        part = done_bytes / self._bytes if self._bytes else done_files / self._files
        if waited < _LINE_S or (part - self._last_part < _STEP and waited < _ANYWAY_S):
            return
        self._last, self._last_part = now, part
        rate = (done_bytes - self._held) / max(now - self._began, 1e-9)
        left = f", {duration((self._bytes - done_bytes) / rate)} left" if rate > 0 else ""
        self.say(
            f"{self._what}: {done_files}/{self._files} files, {console.size(done_bytes)} of "
            f"{console.size(self._bytes)}, {console.size(rate)}/s{left}"
        )


class Throttle:
    """Lets one pass a second, for progress that programs read."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    def __call__(self) -> bool:
        now = self._clock()
        if self._last is not None and now - self._last < _LINE_S:
            return False
        self._last = now
        return True


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"
