"""Extents behave like a set of offsets."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from proxy.mirror.extents import Extents

SIZE = 40
RANGES = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=12)


def offsets(ranges: list[tuple[int, int]]) -> set[int]:
    return {offset for start, stop in ranges for offset in range(start, stop)}


@given(RANGES)
def test_it_holds_what_was_added_and_nothing_else(ranges: list[tuple[int, int]]) -> None:
    extents = Extents(ranges)
    assert offsets(list(extents)) == offsets(ranges)
    assert extents.total == len(offsets(ranges))


@given(RANGES)
def test_its_ranges_are_sorted_and_do_not_touch(ranges: list[tuple[int, int]]) -> None:
    held = list(Extents(ranges))
    assert all(start < stop for start, stop in held)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(held))


@given(RANGES)
def test_the_front_is_the_first_offset_that_is_missing(ranges: list[tuple[int, int]]) -> None:
    held = offsets(ranges)
    assert Extents(ranges).front == next(at for at in range(SIZE + 1) if at not in held)


@given(RANGES, st.integers(0, SIZE), st.integers(0, SIZE))
def test_gaps_are_what_is_missing_in_order(
    ranges: list[tuple[int, int]], start: int, stop: int
) -> None:
    gaps = list(Extents(ranges).gaps(stop, start))
    assert offsets(gaps) == set(range(start, stop)) - offsets(ranges)
    assert gaps == sorted(gaps)
    assert all(one < other for one, other in gaps)


@given(RANGES)
def test_a_copy_is_equal_and_its_own(ranges: list[tuple[int, int]]) -> None:
    extents = Extents(ranges)
    copy = Extents(extents)
    before = list(extents)
    copy.add(0, SIZE + 5)
    assert list(extents) == before
    assert list(copy) == [(0, SIZE + 5)]
