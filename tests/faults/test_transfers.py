"""U01-U14: answers that are late, refused, cut, stalled, too short or too long."""

from __future__ import annotations

import re

import pytest

from tests.faults.bench import FILE, SMALL, WEIGHTS, Bench
from tests.faults.client import CLEAN, RIGHT


@pytest.mark.row("U01", behaviour="Right: one GET at the CDN, at most 1.01 times the bytes.")
def test_u01_nothing_is_fetched_twice(bench: Bench) -> None:
    """None."""
    assert bench.get() is RIGHT
    assert bench.get(SMALL) is RIGHT
    assert bench.hub.cdn_gets() == 1
    assert bench.ratio() <= 1.01
    assert bench.ratio(SMALL) <= 1.01


@pytest.mark.row("U02", behaviour="Right: asked again after a pause.")
def test_u02_one_503_is_not_seen(bench: Bench) -> None:
    """The CDN answers 503 once."""
    bench.hub.fault("U02")
    assert bench.get() is RIGHT
    assert bench.hub.cdn_gets() == 2


@pytest.mark.row("U03", behaviour="Clean, after a few tries with growing pauses; then it heals.")
def test_u03_a_cdn_that_is_down_is_not_hammered(bench: Bench) -> None:
    """The CDN answers 503 to everything."""
    bench.hub.fault("U03")
    assert bench.get() is CLEAN
    assert 2 <= bench.hub.cdn_gets() <= 10


@pytest.mark.row("U04", behaviour="Right, after the pause that it asked for.")
def test_u04_a_cdn_is_waited_for_as_it_says(bench: Bench) -> None:
    """The CDN answers 429 with Retry-After: 1."""
    bench.hub.fault("U04")
    assert bench.get() is RIGHT
    assert bench.last().seconds >= 1
    assert bench.hub.cdn_gets() == 2


@pytest.mark.row("U04", behaviour="Refused with the same wait in Retry-After, and not asked again.")
def test_u04_a_long_wait_is_passed_on(bench: Bench) -> None:
    """The CDN answers 429 and asks for five minutes."""
    bench.hub.fault("U04", times=None, retry_after=300)
    got = bench.ask(bench.url(FILE), headers={"User-Agent": "unknown/None; hf_hub/1.33.0"})
    assert (got.status, got.header("X-Error-Code")) == (429, "Busy")
    assert 290 <= int(got.header("Retry-After")) <= 300
    assert bench.get() is CLEAN
    assert bench.hub.cdn_gets() <= 2
    bench.set_aside(FILE)  # five minutes are obeyed, also when the fault is over


@pytest.mark.row("U05", behaviour="Right, after the pause that it asked for, once for everybody.")
def test_u05_the_hub_is_waited_for_as_it_says(bench: Bench) -> None:
    """The Hub answers 429 with Retry-After: 1."""
    bench.hub.fault("U05")
    assert bench.get() is RIGHT
    assert bench.last().seconds >= 1
    assert len(bench.hub.requests(host="hub", route="resolve")) == 2


@pytest.mark.row("U06", behaviour="Right: asked again after a pause.")
def test_u06_one_500_is_not_seen(bench: Bench) -> None:
    """The Hub answers 500 once."""
    bench.hub.fault("U06")
    assert bench.get() is RIGHT


@pytest.mark.row("U07", behaviour="Right: asked again.")
def test_u07_a_reset_instead_of_an_answer_is_not_seen(bench: Bench) -> None:
    """The CDN resets the connection before it answers."""
    bench.hub.fault("U07")
    assert bench.get() is RIGHT


@pytest.mark.row("U08", behaviour="Right: resumed where it stopped, at most 1.2 times the bytes.")
def test_u08_a_reset_half_way_is_resumed(bench: Bench) -> None:
    """The CDN resets the connection half way."""
    bench.hub.fault("U08")
    _is_resumed(bench)


@pytest.mark.row("U09", behaviour="Right: resumed where it stopped, at most 1.2 times the bytes.")
def test_u09_an_early_end_is_resumed(bench: Bench) -> None:
    """The CDN ends the connection half way, in good order."""
    bench.hub.fault("U09")
    _is_resumed(bench)


def _is_resumed(bench: Bench) -> None:
    assert bench.get() is RIGHT
    first, second = bench.hub.requests(host="cdn")
    assert "range" not in first.headers
    assert re.match(r"bytes=[1-9]\d*-", second.headers["range"])
    assert bench.ratio() <= 1.2


@pytest.mark.row("U10", behaviour="Right: given up after `timeouts.read` without a byte, resumed.")
def test_u10_a_stall_is_given_up(bench: Bench) -> None:
    """The CDN stops sending half way and leaves the connection open."""
    bench.hub.fault("U10")
    assert bench.get() is RIGHT
    assert bench.ratio() <= 1.2


@pytest.mark.row("U11", behaviour="Right or clean: the lock knows the size; the rest is fetched.")
def test_u11_a_short_file_is_never_complete(bench: Bench) -> None:
    """The CDN always sends half of what was asked for and says that this was all."""
    bench.hub.fault("U11")
    bench.get()


@pytest.mark.row("U12", behaviour="Right: the rest is fetched.")
def test_u12_what_is_missing_is_fetched(bench: Bench) -> None:
    """The CDN once sends half of the file and says that this was all."""
    bench.hub.fault("U12")
    assert bench.get() is RIGHT
    assert bench.ratio() <= 1.2


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.row("U13", behaviour="Right; the download is ended at the size that the lock names.")
def test_u13_a_long_file_is_ended_where_it_should_end(bench: Bench, hidden: bool) -> None:
    """The CDN sends 64 MiB more than the file has, announced in Content-Length or not."""
    bench.hub.fault("U13", by=64 << 20, hidden=hidden)
    assert bench.get() is RIGHT
    sent = bench.hub.cdn_bytes
    assert sent < WEIGHTS.size + (16 << 20), "more was taken than what sockets buffer"


@pytest.mark.row("U14", behaviour="Right: no byte of the file is missing.")
def test_u14_a_length_that_is_too_large_does_not_matter(bench: Bench) -> None:
    """The CDN announces more bytes than the file has, and ends where the file does."""
    bench.hub.fault("U14")
    assert bench.get() is RIGHT
    assert bench.ratio() <= 1.01
