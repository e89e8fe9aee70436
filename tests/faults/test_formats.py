"""U31-U34, U38, U44, U45, U53: answers that are malformed, or too much of something."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.hub_server import HubServer
from tests.faults.bench import FILE, FILES, PARTS, REPO, SMALL, WEIGHTS, Bench, until
from tests.faults.client import CLEAN, RIGHT, ask
from tests.faults.mirror import MirrorProcess

MIB = 1 << 20


@pytest.mark.row("U31", behaviour="Clean: it is shorter than the lock says.")
def test_u31_nothing_is_not_a_file(bench: Bench) -> None:
    """The CDN answers 200 and sends nothing."""
    bench.hub.fault("U31")
    assert bench.get() is CLEAN


@pytest.mark.row("U32", behaviour="Right, with a Content-Length: the lock knows the size.")
def test_u32_a_length_need_not_be_said(bench: Bench) -> None:
    """The CDN answers in chunks, without Content-Length."""
    bench.hub.fault("U32")
    assert bench.get() is RIGHT
    assert bench.last().length == WEIGHTS.size


@pytest.mark.parametrize("path", [FILE, SMALL])
@pytest.mark.row("U33", behaviour="Clean: nothing is unpacked. Memory grows by less than 32 MB.")
def test_u33_a_bomb_does_not_go_off(bench: Bench, path: str) -> None:
    """The upstream sends 300 MB of zeros as 300 kB of gzip."""
    assert bench.get(PARTS[0]) is RIGHT
    before = bench.mirror.memory("VmRSS")
    bench.hub.fault("U33", host="cdn" if path == FILE else "hub")
    assert bench.get(path) is CLEAN
    assert bench.mirror.memory("VmHWM") - before < 32 * MIB


@pytest.mark.parametrize("host", ["cdn", "hub"])
@pytest.mark.row(
    "U34", behaviour="Right or clean: heads are limited. Memory grows by less than 32 MB."
)
def test_u34_an_endless_head_is_not_read(bench: Bench, host: str) -> None:
    """The upstream sends 5 MB of headers."""
    assert bench.get(PARTS[0]) is RIGHT
    before = bench.mirror.memory("VmRSS")
    bench.hub.fault("U34", host=host)
    bench.get()
    assert bench.mirror.memory("VmHWM") - before < 32 * MIB


TREES = ("truncated", "deep", "dotdot", "self-link", "endless", "foreign-link", "not-a-list")


@pytest.mark.row("U38", behaviour="502 to whoever waits for the lock, no hang; then it is locked.")
def test_u38_a_broken_tree_is_never_locked(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The list of files is cut, nested 100,000 deep, names `../../etc/passwd`, links to itself,
    never ends, goes on at another host, or is no list."""
    for variant in TREES:
        own_hub.commit(f"trees/{variant}", FILES)
        own_hub.fault("U38", path=f"*/{variant}/*", variant=variant)
    mirror = start(own_hub, locked=False, allow=tuple(f"trees/{v}@main" for v in TREES))
    bench = Bench(own_hub, mirror, repo="trees/deep")
    for variant in TREES:
        got = bench.ask(f"/api/models/trees/{variant}/revision/main")
        assert got.status == 502, got.head
        assert got.seconds < 20
    assert len(own_hub.requests(route="tree")) <= 8 * len(TREES)
    own_hub.heal()
    urls = [f"{mirror.url}/trees/{variant}/resolve/main/{SMALL}" for variant in TREES]
    until("all are locked", lambda: all(ask(url).status == 200 for url in urls), 60)
    own_hub.reset()
    bench.aftermath()


@pytest.mark.row("U44", behaviour="Right: asked again.")
def test_u44_garbage_is_not_an_answer(bench: Bench) -> None:
    """The CDN once sends noise instead of HTTP."""
    bench.hub.fault("U44")
    assert bench.get() is RIGHT


@pytest.mark.parametrize("times", [1, None])
@pytest.mark.row("U45", behaviour="Not read. Right if it happens once, clean if it goes on.")
def test_u45_two_lengths_are_no_length(bench: Bench, times: int | None) -> None:
    """The CDN sends two different Content-Length headers."""
    bench.hub.fault("U45", times=times)
    assert bench.get() is (RIGHT if times == 1 else CLEAN)


@pytest.mark.row("U53", behaviour="Right: sizes and digests come from the tree and from the lock.")
def test_u53_an_empty_head_does_not_matter(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """HEAD is answered without Content-Length, ETag and the X-Linked headers, as hf-mirror.com
    does."""
    own_hub.fault("U53")
    mirror = start(own_hub, locked=False, allow=(f"{REPO}@main",))
    bench = Bench(own_hub, mirror)
    assert bench.get() is RIGHT
    assert bench.get(SMALL) is RIGHT
    bench.aftermath()
