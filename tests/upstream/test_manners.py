"""How long an origin is left alone."""

from __future__ import annotations

import pytest

from proxy.errors import UpstreamUnavailable
from proxy.upstream.manners import Manners, Pace, asked_wait


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 50.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def manners(time: Time) -> Manners:
    return Manners("hub", Pace(), clock=time, sleep=time.sleep, jitter=lambda: 1.0)


async def test_a_new_origin_is_asked_at_once(manners: Manners, time: Time) -> None:
    assert await manners.turn("a") == 50.0
    assert time.slept == []


async def test_everybody_waits_as_long_as_one_was_told(manners: Manners, time: Time) -> None:
    manners.told("a", 20.0)
    assert await manners.turn("a") == 70.0
    assert time.slept == [20.0]


async def test_another_origin_is_not_waited_for(manners: Manners, time: Time) -> None:
    manners.told("hub", 20.0)
    await manners.turn("cdn")
    assert time.slept == []


async def test_a_shorter_request_does_not_shorten_a_longer_one(
    manners: Manners, time: Time
) -> None:
    manners.told("a", 20.0)
    manners.told("a", 1.0)
    await manners.turn("a")
    assert time.slept == [20.0]


async def test_a_wait_beyond_the_cap_is_an_error_at_once(manners: Manners, time: Time) -> None:
    manners.told("a", 61.0)
    with pytest.raises(UpstreamUnavailable, match="61 s") as caught:
        await manners.turn("a")
    assert caught.value.retry_after_s == 61.0
    assert time.slept == []


async def test_back_off_doubles_up_to_a_small_maximum(manners: Manners, time: Time) -> None:
    for _ in range(8):
        manners.failed("a", await manners.turn("a"))
        time.now += 0.001
    await manners.turn("a")
    assert [round(one, 1) for one in time.slept] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


async def test_failures_of_requests_sent_together_count_once(manners: Manners, time: Time) -> None:
    asked = [await manners.turn("a") for _ in range(10)]
    time.now += 1.0
    for one in asked:
        manners.failed("a", one)
    await manners.turn("a")
    assert time.slept == [pytest.approx(0.2)]


async def test_back_off_ends_with_the_first_answer(manners: Manners, time: Time) -> None:
    manners.failed("a", await manners.turn("a"))
    manners.fine("a")
    await manners.turn("a")
    assert time.slept == []


async def test_an_answer_does_not_end_what_the_origin_asked_for(
    manners: Manners, time: Time
) -> None:
    manners.told("a", 5.0)
    manners.fine("a")
    await manners.turn("a")
    assert time.slept == [5.0]


async def test_jitter_shortens_the_wait_by_up_to_half(time: Time) -> None:
    manners = Manners("hub", clock=time, sleep=time.sleep, jitter=lambda: 0.0)
    manners.failed("a", await manners.turn("a"))
    await manners.turn("a")
    assert time.slept == [pytest.approx(0.1)]


async def test_made_up_origins_do_not_fill_the_memory(manners: Manners) -> None:
    for number in range(5000):
        manners.told(f"https://{number}.cdn.example", 1.0)
    assert len(manners._origins) <= 1000


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 400}, 999_999_999.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        (
            {
                "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30.0,
        ),
        ({"Retry-After": "Wed, 99 Oct 2015", "Date": "yesterday"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api";r=12;t=55'}, None),
        ({"RateLimit": "nonsense"}, None),
    ],
)
def test_what_an_answer_asks_for(headers: dict[str, str], wait_s: float | None) -> None:
    assert asked_wait(headers) == wait_s
