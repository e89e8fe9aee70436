"""U42, U43, C07: many clients at once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.control import HubControl
from tests.faults.bench import BIG, FILES, Bench, until
from tests.faults.client import RIGHT, Download
from tests.faults.crowd import Crowd, Job
from tests.faults.mirror import MirrorProcess, Source

CLIENTS = 200
URL = "/acme/big/resolve/main/big.bin"
MIB = 1 << 20


def whole(**more: int) -> Job:
    return Job(str(BIG.seed), BIG.size, **more)


def wait_held(bench: Bench) -> None:
    until("the file is held", lambda: BIG.sha256() in bench.mirror.blobs(), 60)


@pytest.mark.timeout(240)
@pytest.mark.row("U42", behaviour="All right, by one transfer of at most 1.01 times the bytes.")
def test_u42_a_crowd_costs_one_transfer(
    hub: HubControl, start: Callable[..., MirrorProcess]
) -> None:
    """200 clients ask for one cold file of 200 MB at once."""
    bench = Bench(hub, start(Source(hub.url, connections=1)))
    found = Counter(Crowd(bench.mirror.url + URL, [whole()] * CLIENTS).outcomes())
    assert found == {"right": CLIENTS}
    assert bench.hub.cdn_gets() == 1
    assert bench.hub.cdn_bytes <= 1.01 * BIG.size
    bench.aftermath()


@pytest.mark.row("U42", behaviour="All right, and no byte of the file is fetched twice.")
def test_u42_a_crowd_with_ranges_costs_one_transfer(bench: Bench) -> None:
    """200 clients ask for different ranges of one cold file at once: heads, tails, pieces, all."""
    dice = random.Random(42)
    jobs = [whole()] * 10
    while len(jobs) < CLIENTS:
        start = dice.randrange(BIG.size - 20 * MIB)
        piece = dice.randrange(1, 20 * MIB)
        spans = ((start, start + piece), (BIG.size - piece, BIG.size), (0, 1), (0, piece))
        jobs += [whole(start=low, stop=high) for low, high in spans]
    jobs = jobs[:CLIENTS]
    found = Counter(Crowd(bench.mirror.url + URL, jobs).outcomes())
    assert found == {"right": CLIENTS}
    assert bench.hub.cdn_bytes <= 1.01 * BIG.size


@pytest.mark.row("U43", behaviour="The transfer goes on, at most 1.6 times the bytes, and is kept.")
def test_u43_a_download_outlives_its_clients(bench: Bench) -> None:
    """All clients of a cold file hang up half way."""
    jobs = [whole(leave_at=number * 4 * MIB) for number in range(20)]
    assert Counter(Crowd(bench.mirror.url + URL, jobs).outcomes()) == {"left": 20}
    wait_held(bench)
    assert bench.hub.cdn_bytes <= 1.6 * BIG.size
    again = Crowd(bench.mirror.url + URL, [whole()])
    assert again.outcomes() == ["right"]
    assert bench.hub.cdn_bytes <= 1.6 * BIG.size


@pytest.mark.row("C07", behaviour="All right, and every file is fetched once.")
def test_c07_a_fleet_takes_the_whole_repository(bench: Bench) -> None:
    """20 clients fetch every file of a cold repository at once."""

    def take(number: int) -> bool:
        order = sorted(FILES, key=lambda path: hash((number, path)))
        downloads = [Download(bench.url(path), FILES[path].content) for path in order]
        return all(download.attempt() is RIGHT for download in downloads)

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(take, range(20)))
    large = [path for path, file in FILES.items() if file.lfs]
    assert [bench.hub.cdn_gets(path) for path in large] == [1] * len(large)
