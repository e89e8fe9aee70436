"""Fixtures of this room."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.mirror.alone import Alone
from tests.mirror.bench import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    made = Bench(tmp_path / "data")
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncGenerator[Alone]:
    made = Alone(tmp_path)
    yield made
    made.close()
