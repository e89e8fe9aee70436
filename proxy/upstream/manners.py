"""How patiently an origin is asked: what it told us to wait, and back-off after failures.

One `Manners` is shared by all requests of an upstream, so that a `Retry-After` is obeyed once for
everybody. Each origin is remembered by itself: a hub that is busy says nothing about its CDN.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from proxy.errors import UpstreamUnavailable

# RateLimit: "api";r=0;t=55 (draft-ietf-httpapi-ratelimit-headers; the Hub sends it with a 429)
_RESET = re.compile(r";\s*t=(\d{1,6})\b")
_EMPTY = re.compile(r";\s*r=0\b")
_MANY = 1000  # origins; more can only come from a hub that makes up names


@dataclass(slots=True)
class _Origin:
    told_until: float = 0.0  # it asked us to wait until then
    rest_until: float = 0.0  # we decided to wait until then
    failures: int = 0  # one after another
    failed_at: float = float("-inf")

    @property
    def until(self) -> float:
        return max(self.told_until, self.rest_until)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long we wait. Back-off doubles, and stays small: an upstream may be back any moment."""

    cap_s: float = 60.0  # that an origin may ask for; longer waits are for the caller
    first_s: float = 0.2  # of back-off, after one failure
    most_s: float = 5.0  # of back-off, after many


class Manners:
    """Says when the next request to an origin may go out."""

    def __init__(
        self,
        name: str,
        pace: Pace = Pace(),
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._origins: dict[str, _Origin] = {}

    async def turn(self, origin: str) -> float:
        """Wait until the origin may be asked; the moment it is, to hand to `failed`.

        Raises: UpstreamUnavailable at once, if that is longer than `Pace.cap_s` away.
        """
        deadline = self._clock() + self._pace.cap_s
        while True:
            now = self._clock()
            state = self._origins.get(origin)
            if state is None or state.until <= now:
                return now
            if state.until > deadline:
                left = state.until - now
                raise UpstreamUnavailable(
                    self._name, f"it asked us to wait for {left:.0f} s", retry_after_s=left
                )
            await self._sleep(state.until - now)

    def told(self, origin: str, wait_s: float) -> None:
        """The origin asked us to stay away for so long."""
        state = self._state(origin)
        state.told_until = max(state.told_until, self._clock() + wait_s)

    def failed(self, origin: str, asked_at: float) -> None:
        """A request that went out at `asked_at` failed for a reason that may pass.

        Requests that went out together and fail together count once.
        """
        state = self._state(origin)
        if asked_at <= state.failed_at:
            return
        state.failures += 1
        state.failed_at = self._clock()
        pause = min(self._pace.most_s, self._pace.first_s * 2.0 ** min(state.failures - 1, 20))
        state.rest_until = state.failed_at + pause * (0.5 + self._jitter() / 2)

    def fine(self, origin: str) -> None:
        """The origin answered: no more back-off. What it asked for itself stays."""
        state = self._origins.get(origin)
        if state is not None:
            state.failures = 0
            state.rest_until = 0.0

    def _state(self, origin: str) -> _Origin:
        if len(self._origins) >= _MANY and origin not in self._origins:
            self._origins.clear()
        return self._origins.setdefault(origin, _Origin())


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds that a 429 or 503 asks us to wait; None if it does not say.

    RFC 9110 §10.2.3: Retry-After is a number of seconds or a date. A date is compared with the
    answer's own Date: our clock may be wrong.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if text and "Date" in headers:
        until, sent = _http_date(text), _http_date(headers["Date"])
        if until is not None and sent is not None:
            return max(0.0, (until - sent).total_seconds())
    limit = headers.get("RateLimit", "")
    reset = _RESET.search(limit)
    if reset is not None and _EMPTY.search(limit):
        return float(reset[1])
    return None


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
