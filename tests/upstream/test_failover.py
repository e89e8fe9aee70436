"""An upstream made of upstreams."""

from __future__ import annotations

import pytest

from proxy.errors import (
    RangeIgnored,
    UpstreamError,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamUnavailable,
)
from proxy.hub.names import RepoId, Revision
from proxy.hub.wire import RepoInfo
from proxy.upstream.failover import Failover
from tests.fakes.memory import FakeHub
from tests.upstream.contract import (
    FILES,
    MAIN,
    NOWHERE,
    REPO,
    UpstreamContract,
    located,
    read,
    world,
)

MODEL = located("sub/deep/model.safetensors")
README = located("README.md")
DATA = FILES[MODEL.path].content.read(0, MODEL.size)


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def near() -> FakeHub:
    return FakeHub("near", world())


@pytest.fixture
def far() -> FakeHub:
    return FakeHub("far", world())


@pytest.fixture
def upstream(near: FakeHub, far: FakeHub, time: Time) -> Failover:
    return Failover([near, far], rest_s=30, clock=time)


class TestFailover(UpstreamContract):
    """The contract, with two good members."""


class TestFailoverWithAnEmptyMember(UpstreamContract):
    """The contract, though the preferred member has nothing."""

    @pytest.fixture
    def near(self) -> FakeHub:
        return FakeHub("near")


async def test_the_preferred_member_is_asked_alone(
    upstream: Failover, near: FakeHub, far: FakeHub
) -> None:
    assert await read(upstream, MODEL) == DATA
    assert (len(near.fetched), len(far.fetched)) == (1, 0)


async def test_a_member_that_failed_rests(
    upstream: Failover, near: FakeHub, far: FakeHub, time: Time
) -> None:
    near.down = True
    await read(upstream, MODEL)
    near.down = False
    await read(upstream, MODEL)
    assert (len(near.fetched), len(far.fetched)) == (1, 2)
    time.now += 31
    await read(upstream, MODEL)
    assert (len(near.fetched), len(far.fetched)) == (2, 2)


async def test_a_member_rests_as_long_as_it_asked_to(
    upstream: Failover, near: FakeHub, time: Time
) -> None:
    near.down, near.retry_after_s = True, 300.0
    await read(upstream, MODEL)
    time.now += 299
    await read(upstream, MODEL)
    assert len(near.fetched) == 1


async def test_when_all_rest_all_are_asked(upstream: Failover, near: FakeHub, far: FakeHub) -> None:
    near.down = far.down = True
    with pytest.raises(UpstreamUnavailable, match=r"near: is down; far: is down"):
        await upstream.info(REPO, MAIN)
    near.down = False
    assert await read(upstream, MODEL) == DATA


async def test_a_cut_is_the_callers_to_resume_at_the_next_member(
    upstream: Failover, near: FakeHub, far: FakeHub
) -> None:
    near.cut_after = 100_000
    got = b""
    with pytest.raises(UpstreamUnavailable):
        async for chunk in upstream.fetch(MODEL, 0, MODEL.size):
            got += chunk
    assert got == DATA[:100_000]
    assert await read(upstream, MODEL, 100_000) == DATA[100_000:]
    assert far.fetched == [(MODEL.path, 100_000)]


async def test_a_silent_end_makes_the_next_member_go_on(
    upstream: Failover, near: FakeHub, far: FakeHub
) -> None:
    near.cut_after, near.cut_quietly = 100_000, True
    assert await read(upstream, MODEL) == DATA[:100_000]
    assert await read(upstream, MODEL, 100_000) == DATA[100_000:]
    assert len(far.fetched) == 1


async def test_an_empty_body_is_no_answer(upstream: Failover, near: FakeHub, far: FakeHub) -> None:
    near.cut_after, near.cut_quietly = 0, True
    assert await read(upstream, MODEL) == DATA


async def test_a_stale_member_without_the_commit_is_passed_over_and_does_not_rest(
    upstream: Failover, near: FakeHub, far: FakeHub
) -> None:
    near.missing = True
    assert await read(upstream, MODEL) == DATA
    near.missing = False
    assert await read(upstream, MODEL) == DATA
    assert len(near.fetched) == 2


async def test_a_member_without_ranges_is_passed_over(
    upstream: Failover, near: FakeHub, far: FakeHub
) -> None:
    near.ignores_range = True
    assert await read(upstream, MODEL, 5) == DATA[5:]
    far.down = True
    with pytest.raises(RangeIgnored):
        await read(upstream, MODEL, 5)


async def test_a_tree_that_breaks_before_its_first_file_comes_from_the_next(
    upstream: Failover, near: FakeHub
) -> None:
    near.cut_tree_after = 0
    assert len([entry async for entry in upstream.tree(REPO, MODEL.commit)]) == len(FILES)


async def test_a_tree_that_breaks_half_way_is_broken(upstream: Failover, near: FakeHub) -> None:
    near.cut_tree_after = 1
    with pytest.raises(UpstreamUnavailable):
        async for _ in upstream.tree(REPO, MODEL.commit):
            pass


class TestBlame:
    async def test_wrong_bytes_make_another_member_preferred(
        self, upstream: Failover, near: FakeHub, far: FakeHub
    ) -> None:
        near.lies = True
        assert await read(upstream, MODEL) != DATA
        upstream.blame(MODEL)
        assert await read(upstream, MODEL) == DATA
        assert near.blamed == [MODEL.path]
        assert far.blamed == []

    async def test_a_liar_comes_last_for_that_file_even_when_rested(
        self, upstream: Failover, near: FakeHub, far: FakeHub, time: Time
    ) -> None:
        await read(upstream, MODEL)
        upstream.blame(MODEL)
        time.now += 10_000
        await read(upstream, MODEL)
        await read(upstream, README)
        assert [path for path, _ in near.fetched] == [MODEL.path, README.path]

    async def test_a_liar_rests_longer_than_a_failure(
        self, upstream: Failover, near: FakeHub, time: Time
    ) -> None:
        await read(upstream, MODEL)
        upstream.blame(MODEL)
        time.now += 31
        await read(upstream, README)
        assert len(near.fetched) == 1

    async def test_the_last_one_left_is_still_asked(self, upstream: Failover, far: FakeHub) -> None:
        await read(upstream, MODEL)
        upstream.blame(MODEL)
        far.down = True
        assert await read(upstream, MODEL) == DATA


class Problem(FakeHub):
    """Always fails in its own way."""

    def __init__(self, error: UpstreamError) -> None:
        super().__init__(error.upstream, world())
        self.error = error

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        raise self.error


DOWN = UpstreamUnavailable("a", "down", 9.0)
GONE = UpstreamMissing("b", "gone")
SHUT = UpstreamForbidden("c", "shut")


@pytest.mark.parametrize(
    ("problems", "kind"),
    [
        ((DOWN, GONE), UpstreamUnavailable),
        ((GONE, GONE), UpstreamMissing),
        ((GONE, SHUT), UpstreamForbidden),
        ((DOWN, SHUT), UpstreamForbidden),
        ((DOWN, GONE, SHUT), UpstreamForbidden),
    ],
)
async def test_when_all_fail_the_most_telling_error_comes_out(
    problems: tuple[UpstreamError, ...], kind: type[UpstreamError]
) -> None:
    members = [Problem(one) for one in problems]
    with pytest.raises(kind) as caught:
        await Failover(members).info(REPO, MAIN)
    for member in members:
        assert f"{member.name}: {member.error.problem}" in str(caught.value)


async def test_the_shortest_wait_is_passed_on(near: FakeHub, far: FakeHub) -> None:
    near.down = far.down = True
    near.retry_after_s, far.retry_after_s = 50.0, 20.0
    with pytest.raises(UpstreamUnavailable) as caught:
        await Failover([near, far]).info(REPO, MAIN)
    assert caught.value.retry_after_s == 20.0


async def test_nobody_waits_while_another_member_may_be_back_any_moment(
    near: FakeHub, far: FakeHub
) -> None:
    """A download would be given up because of one member, although the other only blinked."""
    near.down = far.down = True
    near.retry_after_s = 3600.0
    with pytest.raises(UpstreamUnavailable) as caught:
        await Failover([near, far]).info(REPO, MAIN)
    assert caught.value.retry_after_s is None


async def test_a_commit_that_nobody_has_is_missing(upstream: Failover) -> None:
    with pytest.raises(UpstreamMissing, match=r"near.*far"):
        async for _ in upstream.tree(REPO, NOWHERE):
            pass


async def test_connections_are_those_of_the_member_that_comes_next(
    upstream: Failover, near: FakeHub, far: FakeHub
) -> None:
    near.connections, far.connections = 4, 2
    assert upstream.connections == 4
    near.down = True
    await read(upstream, MODEL)
    assert upstream.connections == 2


async def test_closing_closes_every_member(upstream: Failover, near: FakeHub, far: FakeHub) -> None:
    await upstream.close()
    assert (near.closed, far.closed) == (1, 1)


def test_there_is_no_failover_of_nobody() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Failover([])
