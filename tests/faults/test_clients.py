"""C01-C04: clients that leave, that do not read, that do not finish, that ask for too much.

They share one mirror. Who is dropped after a minute is connected here and looked for at the end of
the session.
"""

from __future__ import annotations

import random
import select
import socket
import statistics
import struct
import time
from contextlib import suppress

import pytest

from tests.faults.bench import BIG_PATH, FILE, FILES, PARTS, SMALL, WEIGHTS, until
from tests.faults.client import RIGHT
from tests.faults.place import Place

SLOW_READERS = 200
HALF_SENT = 400
LEAVERS = 400


@pytest.mark.row(
    "C02",
    behaviour="Others wait twice as long at most, or 50 ms (median) and 250 ms (99 of 100).",
)
def test_c02_slow_readers_slow_nobody_else(place: Place) -> None:
    """200 clients ask for a large file and read nothing."""
    before = place.milliseconds()
    _read_nothing(place)
    during = place.milliseconds()
    # On a busy machine a single pause of the scheduler is longer than a hundred hits.
    assert statistics.median(during) < max(2 * statistics.median(before), 50)
    assert during[98] < max(2 * before[98], 250)


@pytest.mark.row("C03", behaviour="All are gone after at most 10 s; others are served meanwhile.")
def test_c03_half_sent_heads_are_dropped(place: Place) -> None:
    """400 clients send half of a request's head, now and then one more byte."""
    clients, head = [], place.request(f"/{FILE}", "X-Pad: " + "x" * 40)
    for number in range(HALF_SENT):
        client = place.connect()
        client.sendall(head[: 1 + number % (len(head) - 10)])
        clients.append(client)
    began = time.monotonic()
    assert place.bench.ask(place.bench.url(SMALL)).status == 200
    left = set(clients)
    while left and time.monotonic() - began < 12:
        readable, _, _ = select.select(list(left), [], [], 0.5)
        left -= {client for client in readable if _ended(client)}
        for client in random.Random(3).sample(sorted(left, key=id), min(5, len(left))):
            _dribble(client)
    took = time.monotonic() - began
    for client in clients:
        client.close()
    assert not left
    assert took < 10


@pytest.mark.row("C04", behaviour="One answer of at most the file's size, by one transfer.")
def test_c04_ranges_multiply_nothing(place: Place) -> None:
    """A client asks for 1,500 overlapping ranges at once, and for tiny ranges of a cold file."""
    place.bench.hub.reset()
    many = "bytes=" + ",".join(f"{number}-" for number in range(1500))
    got = place.bench.ask(place.bench.url(FILE), headers={"Range": many})
    assert (got.status, bytes(got.body)) == (
        200,
        WEIGHTS.read(0, WEIGHTS.size),
    ) or got.status == 400
    some = "bytes=0-,1-,2-,3-"
    got = place.bench.ask(place.bench.url(FILE), headers={"Range": some})
    assert got.status == 200
    assert len(got.body) == WEIGHTS.size
    cold = FILES[PARTS[0]].content
    for at in (cold.size - 1, 0, 5000, cold.size // 2):
        got = place.bench.ask(place.bench.url(PARTS[0]), headers={"Range": f"bytes={at}-{at}"})
        assert (got.status, bytes(got.body)) == (206, cold.read(at, at + 1))
    assert place.bench.ratio(PARTS[0]) <= 2
    for odd in ("bytes=-0", "bytes=9999999999999-", "bytes=5-2", "bytes=a-b", "chunks=0-1"):
        got = place.bench.ask(place.bench.url(FILE), headers={"Range": odd})
        assert got.status in (200, 416), odd


@pytest.mark.row("C01", behaviour="No descriptor and no connection stays, in 400 tries.")
def test_c01_who_leaves_leaves_nothing_behind(place: Place) -> None:
    """Clients hang up at any byte of their request or its answer, by FIN or by RST."""
    mirror, dice = place.mirror, random.Random(1)
    slow = len(place.slow)
    until("all is quiet", lambda: mirror.metric("hubpin_connections") <= slow + 1)
    before = mirror.descriptors()
    request = place.request(BIG_PATH)
    for number in range(LEAVERS):
        client = place.connect()
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if number % 4 < 2:
            client.sendall(request[: dice.randrange(len(request))])
        else:
            client.sendall(request)
            left = dice.choice((0, 1, 100, 1 << 16, 1 << 21))
            while left > 0 and (piece := client.recv(min(left, 1 << 20))):
                left -= len(piece)
        client.close()
    until("they are forgotten", lambda: mirror.metric("hubpin_connections") <= slow + 1)
    assert mirror.descriptors() <= before + 2
    assert place.bench.get(SMALL) is RIGHT


@pytest.mark.at_the_end
@pytest.mark.row("C02", behaviour="Who has read nothing for a minute is dropped.")
def test_c02_slow_readers_are_dropped(place: Place) -> None:
    """The same clients still read nothing after 60 s."""
    if not place.slow:
        _read_nothing(place)
    until(
        "they are dropped",
        lambda: place.mirror.metric("hubpin_connections") <= 1,
        max(1.0, 90 - (time.monotonic() - place.connected_at)),
    )
    assert "cut short" not in place.mirror.log, "that is no fault of the disk"
    place.bench.hub.reset()
    place.bench.aftermath()


def _read_nothing(place: Place) -> None:
    for _ in range(SLOW_READERS):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", place.mirror.port))
        client.sendall(place.request(BIG_PATH))
        place.slow.append(client)
    place.connected_at = time.monotonic()


def _ended(client: socket.socket) -> bool:
    try:
        return not client.recv(1 << 16)
    except OSError:
        return True


def _dribble(client: socket.socket) -> None:
    with suppress(OSError):
        client.sendall(b"x")
