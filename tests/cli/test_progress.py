"""How far long work is, on a terminal and elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from proxy.cli.progress import Meter, Throttle, duration


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def meter(clock: Clock, *, silent: bool = False) -> tuple[Meter, io.StringIO]:
    said = io.StringIO()
    talk = Console(file=said, force_terminal=False, width=200)
    return Meter("warming", silent=silent, talk=talk, clock=clock), said


def test_a_line_comes_at_most_each_second_and_each_tenth() -> None:
    clock = Clock()
    bar, said = meter(clock)
    bar.plan(10, 1000)
    bar.update(1, 500)  # no second has passed
    clock.now += 2
    bar.update(2, 600)
    bar.update(3, 800)  # the same moment
    clock.now += 2
    bar.update(3, 650)  # less than a tenth more
    lines = said.getvalue().splitlines()
    assert lines == ["warming: 2/10 files, 600 B of 1.0 kB, 300 B/s, 1.3 s left"]


def test_slow_work_says_something_now_and_then() -> None:
    clock = Clock()
    bar, said = meter(clock)
    bar.plan(1, 10**9)
    clock.now += 11
    bar.update(0, 11_000)
    assert "1.0 kB/s" in said.getvalue()


def test_what_was_held_does_not_count_as_speed() -> None:
    clock = Clock()
    bar, said = meter(clock)
    bar.plan(10, 1000, 5, 500)
    clock.now += 10
    bar.update(6, 600)
    assert "10 B/s, 40 s left" in said.getvalue()


def test_silence_is_silence() -> None:
    clock = Clock()
    bar, said = meter(clock, silent=True)
    bar.plan(10, 1000)
    clock.now += 50
    bar.update(5, 500)
    bar.say("hello")
    assert said.getvalue() == ""


def test_a_terminal_sees_a_bar() -> None:
    said = io.StringIO()
    talk = Console(file=said, force_terminal=True, width=120)
    with Meter("warming", silent=False, talk=talk) as bar:
        bar.plan(10, 1000)
        bar.update(5, 500)
        bar.say("between [red]")
    assert "10 files" in said.getvalue()
    assert "between [red]" in said.getvalue()


def test_a_throttle_lets_one_pass_a_second() -> None:
    clock = Clock()
    passes = Throttle(clock)
    assert [passes(), passes()] == [True, False]
    clock.now += 1
    assert passes()


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0.42, 12.4, 200, 7500)] == [
        "0.4 s", "12 s", "3 min 20 s", "2 h 5 min"
    ]  # fmt: skip
