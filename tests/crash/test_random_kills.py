"""P03, the short version of the campaign."""

from __future__ import annotations

import time

import pytest

from tests.crash.campaign import campaign

ROUNDS = 8
_ENOUGH_S = 15.0


@pytest.mark.row(
    "P03",
    "kill -9 at random moments under load, the Hub slow, lying or gone.",
    "No complete wrong answer; what was served is served again; at most 64 MiB come twice.",
)
def test_p03_it_may_die_at_any_moment() -> None:
    began = time.monotonic()
    with campaign(seed=3) as one:
        for number in range(1, ROUNDS + 1):
            one.round(number)
            if time.monotonic() - began > _ENOUGH_S:  # on a machine that others keep busy
                break
        assert one.count["rounds"] >= 3
        assert one.count["requests"] > 20
