"""U15-U25, U35, U37, U46: wrong bytes and wrong words about them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.hub_server import HubServer
from tests.faults.bench import FILE, SMALL, WEIGHTS, Bench
from tests.faults.client import CLEAN, RIGHT
from tests.faults.mirror import MirrorProcess


@pytest.mark.row(
    "U15",
    behaviour="Fetched anew; who was shown bytes before the digest was known is cut, and is sent "
    "the whole file when he comes again.",
)
def test_u15_a_wrong_bit_reaches_nobody(bench: Bench) -> None:
    """The CDN once flips one bit."""
    bench.hub.fault("U15")
    bench.get_in_tries(2)
    assert bench.mirror.blobs() == {WEIGHTS.sha256()}


@pytest.mark.row("U16", behaviour="Clean; nothing is stored, and it is fetched 6 times at most.")
def test_u16_wrong_bits_are_never_complete(bench: Bench) -> None:
    """The CDN always flips one bit."""
    bench.hub.fault("U16")
    for _ in range(4):
        assert bench.get() is CLEAN
    assert bench.mirror.blobs() == set()
    assert bench.mirror.metric("hubpin_integrity_failures_total") >= 1
    assert bench.hub.cdn_gets() <= 6


@pytest.mark.row("U16", behaviour="Right, from the next upstream; the first one is asked last.")
def test_u16_the_next_source_is_better(
    own_hub: HubServer, second_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The first of two upstreams always flips one bit."""
    bench = Bench(own_hub, start(own_hub, second_hub))
    bench.hubs.append(second_hub)
    own_hub.fault("U16")
    bench.get_in_tries(2)
    assert bench.logged("delivered wrong bytes")
    assert second_hub.cdn_gets() == 1
    assert bench.get(SMALL) is RIGHT
    assert not own_hub.requests(path=SMALL), "it is still trusted first"
    bench.aftermath()


@pytest.mark.row("U17", behaviour="Clean: its sha256 is not the locked one. Nothing is stored.")
def test_u17_another_file_of_the_same_size_is_refused(bench: Bench) -> None:
    """The CDN sends other bytes of the right number."""
    bench.hub.fault("U17")
    assert bench.get() is CLEAN
    assert bench.get() is CLEAN
    assert bench.mirror.blobs() == set()


@pytest.mark.row("U18", behaviour="Clean: its sha256 is not the locked one. Nothing is stored.")
def test_u18_another_small_file_is_refused(bench: Bench) -> None:
    """The Hub sends other bytes of the right number for a file that is not LFS."""
    bench.hub.fault("U18")
    assert bench.get(SMALL) is CLEAN
    assert bench.last(SMALL).status == 502
    assert bench.last(SMALL).header("X-Error-Code") == "IntegrityError"
    assert bench.mirror.blobs() == set()


@pytest.mark.row("U18", behaviour="Not locked: its git blob id is not the one in the tree.")
def test_u18_a_lie_at_lock_time_is_noticed(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The Hub sends other bytes of the right number while `hubpin lock` reads small files."""
    mirror = start(own_hub, allow=("acme/model@main",), settings={"auto_lock": "off"}, locked=False)
    own_hub.fault("U18", path=SMALL)
    assert mirror.command("lock").returncode == 1
    assert not mirror.lock.exists() or "acme/model" not in mirror.lock.read_text()
    own_hub.heal()
    assert mirror.command("lock").returncode == 0
    bench = Bench(own_hub, mirror)
    bench.aftermath()


@pytest.mark.row("U19", behaviour="Clean; the log asks: captive portal?")
def test_u19_a_login_page_is_not_a_large_file(bench: Bench) -> None:
    """The CDN answers 200 with the login page of a guest network."""
    bench.hub.fault("U19")
    _is_a_portal(bench, FILE)


@pytest.mark.row("U20", behaviour="Clean; the log asks: captive portal?")
def test_u20_a_login_page_is_no_file_at_all(bench: Bench) -> None:
    """The Hub answers 200 with the login page of a guest network."""
    bench.hub.fault("U20")
    _is_a_portal(bench, FILE)
    _is_a_portal(bench, SMALL)


def _is_a_portal(bench: Bench, path: str) -> None:
    assert bench.get(path) is CLEAN
    assert bench.last(path).status >= 500
    assert bench.logged("captive portal?")
    assert bench.mirror.blobs() == set()


@pytest.mark.row("U21", behaviour="Right: what is there already is skipped.")
def test_u21_an_upstream_that_starts_over_is_followed(bench: Bench) -> None:
    """After a cut, a range is answered by the whole file."""
    bench.hub.fault("U21")
    assert bench.get() is RIGHT


_FETCHED_ANEW = (
    "Right when it is asked for again at the latest: mixed bytes are thrown away, and a client "
    "that was shown some of them is sent the whole file."
)


@pytest.mark.row("U22", behaviour=_FETCHED_ANEW)
def test_u22_bytes_from_elsewhere_are_not_mixed_in(bench: Bench) -> None:
    """After a cut, a range is answered by bytes from elsewhere, under the right headers."""
    bench.hub.fault("U22")
    bench.get_in_tries(2)


@pytest.mark.row("U23", behaviour="Right: not read; it is fetched from the beginning.")
def test_u23_another_range_is_not_mixed_in(bench: Bench) -> None:
    """After a cut, every range is answered by another one, and says so."""
    bench.hub.fault("U23")
    assert bench.get() is RIGHT


@pytest.mark.row("U24", behaviour="Right: it is fetched from the beginning.")
def test_u24_a_range_that_is_refused_breaks_nothing(bench: Bench) -> None:
    """After a cut, every range is answered by 416."""
    bench.hub.fault("U24")
    assert bench.get() is RIGHT


@pytest.mark.row("U25", behaviour=_FETCHED_ANEW)
def test_u25_two_versions_are_not_mixed(bench: Bench) -> None:
    """After a cut, a range is answered from another version of the file, with another ETag."""
    bench.hub.fault("U25")
    bench.get_in_tries(2)


@pytest.mark.row("U35", behaviour="Clean: an answer for another commit is not read.")
def test_u35_another_commit_is_refused(bench: Bench) -> None:
    """The Hub says X-Repo-Commit: 000…."""
    bench.hub.fault("U35")
    assert bench.get() is CLEAN
    assert bench.last().status == 504
    assert bench.mirror.blobs() == set()


@pytest.mark.row("U37", behaviour="Right: only the lock is believed.")
def test_u37_other_words_about_a_file_do_not_matter(bench: Bench) -> None:
    """The Hub says a wrong X-Linked-Etag."""
    bench.hub.fault("U37")
    assert bench.get() is RIGHT
    assert bench.last().header("ETag") == f'"{WEIGHTS.sha256()}"'


@pytest.mark.row("U46", behaviour="Clean at first, or right; right when it is asked again.")
def test_u46_the_fourth_answer_counts(bench: Bench) -> None:
    """The CDN flips a bit three times, and then sends the right bytes."""
    bench.hub.fault("U46")
    bench.get()
