"""An upstream that is asked slowly, and at certain hours."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime, timedelta

import pytest

from proxy.errors import WindowClosed
from proxy.pins.lock import Entry
from proxy.upstream.paced import Pace, Paced, Window
from tests.fakes.memory import FakeHub

NIGHT = Window.parse("22:00-06:00")
DATA = bytes(range(256)) * 4096  # 1 MiB, in 16 pieces


class Clock:
    """Time that passes only while somebody waits, and a little with every look."""

    def __init__(self, start: str, look_s: float = 0.0) -> None:
        self.now = datetime.fromisoformat(f"2026-03-01T{start}")
        self.look_s = look_s
        self.paused_s = 0.0

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=self.look_s)
        return self.now

    async def pause(self, seconds: float) -> None:
        self.paused_s += seconds
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()


@pytest.fixture
def entry(hub: FakeHub) -> Entry:
    return hub.publish("acme/tiny", "model.bin", DATA)


def paced(hub: FakeHub, pace: Pace, clock: Clock) -> Paced:
    return Paced(hub, pace, now=clock, pause=clock.pause)


async def read(upstream: Paced, entry: Entry, start: int = 0) -> bytes:
    async with aclosing(upstream.fetch(entry, start, entry.size)) as pieces:
        return b"".join([piece async for piece in pieces])


# --- hours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "at", "wait_s"),
    [
        ("22:00-06:00", "22:00", 0),
        ("22:00-06:00", "03:12", 0),
        ("22:00-06:00", "05:59:59", 0),
        ("22:00-06:00", "06:00", 16 * 3600),
        ("22:00-06:00", "21:59:30", 30),
        ("9:00-17:30", "17:29", 0),
        ("9:00-17:30", "17:30", 15.5 * 3600),
        ("00:00-00:01", "12:00", 12 * 3600),
    ],
)
def test_a_window_says_how_long_until_it_opens(window: str, at: str, wait_s: float) -> None:
    assert Window.parse(window).wait_s(datetime.fromisoformat(f"2026-03-01T{at}")) == wait_s


@pytest.mark.parametrize(
    "text", ["", "22:00", "22-06", "24:00-06:00", "22:60-06:00", "10:00-10:00", "22:00-06:00x"]
)
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hours|opens"):
        Window.parse(text)


async def test_nothing_is_asked_before_the_window_opens(hub: FakeHub, entry: Entry) -> None:
    clock = Clock("21:00")
    with pytest.raises(WindowClosed) as closed:
        await read(paced(hub, Pace(window=NIGHT), clock), entry)
    assert (closed.value.wait_s, clock.paused_s, hub.fetched) == (3600, 0, [])


async def test_a_fetch_ends_when_the_window_closes(hub: FakeHub, entry: Entry) -> None:
    clock = Clock("05:50", look_s=60)
    start, got = 100_000, b""
    with pytest.raises(WindowClosed) as closed:
        async with aclosing(
            paced(hub, Pace(window=NIGHT), clock).fetch(entry, start, entry.size)
        ) as pieces:
            async for piece in pieces:
                got += piece
    assert got == DATA[start : start + len(got)]
    assert 0 < len(got) < len(DATA) - start
    assert closed.value.wait_s == 16 * 3600
    assert (clock.paused_s, hub.active) == (0, 0)


async def test_the_last_bytes_are_not_lost_to_the_hour(hub: FakeHub, entry: Entry) -> None:
    clock = Clock("05:58", look_s=60)
    assert await read(paced(hub, Pace(window=NIGHT), clock), entry, len(DATA) - 10) == DATA[-10:]
    assert clock().hour == 6


async def test_without_a_window_it_is_always_open(hub: FakeHub, entry: Entry) -> None:
    clock = Clock("12:00")
    assert await read(paced(hub, Pace(), clock), entry) == DATA
    assert clock.paused_s == 0


# --- rate ----------------------------------------------------------------------------------------


async def test_bytes_come_no_faster_than_the_rate(hub: FakeHub, entry: Entry) -> None:
    clock = Clock("12:00")
    upstream = Paced(hub, Pace(rate=1e3), pause=clock.pause, clock=lambda: clock.paused_s)
    await read(upstream, entry)
    await read(upstream, entry)
    assert clock.paused_s == pytest.approx(2 * len(DATA) / 1e3, abs=1)


async def test_with_a_rate_one_connection_is_enough(hub: FakeHub) -> None:
    hub.connections = 8
    assert Paced(hub, Pace(rate=1e6)).connections == 1
    assert Paced(hub, Pace(window=NIGHT)).connections == 8


# --- everything else is the upstream's ------------------------------------------------------------


async def test_names_and_blame_are_passed_on(hub: FakeHub, entry: Entry) -> None:
    upstream = Paced(hub, Pace(rate=1e6))
    assert upstream.name == hub.name
    info = await upstream.info(entry.repo, entry.commit)  # type: ignore[arg-type]  # a commit is a revision
    assert info.commit == entry.commit
    async with aclosing(upstream.tree(entry.repo, entry.commit)) as files:
        assert [file.path async for file in files] == ["model.bin"]
    upstream.blame(entry)
    await upstream.close()
    assert (hub.blamed, hub.closed) == (["model.bin"], 1)
