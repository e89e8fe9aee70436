"""Which bytes of a file are there: sorted half-open ranges that do not touch."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Extents:
    """A set of byte offsets, kept as ranges [start, stop)."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.total = 0  # bytes in all ranges
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(tuple(self._starts), tuple(self._stops), strict=True)

    def add(self, start: int, stop: int) -> None:
        """Add [start, stop), joining the ranges that it touches."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        held = sum(self._stops[i] - self._starts[i] for i in range(first, last))
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]
        self.total += stop - start - held

    @property
    def front(self) -> int:
        """How many bytes from offset 0 on are there without a gap."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    def gaps(self, stop: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """What is missing of [start, stop), in order."""
        at = start
        for held_start, held_stop in self:
            if at >= stop or held_start >= stop:
                break
            if held_start > at:
                yield at, held_start
            at = max(at, held_stop)
        if at < stop:
            yield at, stop
