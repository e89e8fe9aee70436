"""Zygotes for the whole session: one for each thread of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.crash.zygote import Zygote


@pytest.fixture(scope="session")
def zygotes() -> Iterator[list[Zygote]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Zygote()) for _ in range(2)]


@pytest.fixture
def zygote(zygotes: list[Zygote]) -> Zygote:
    return zygotes[0]
