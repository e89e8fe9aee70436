"""Fixtures of this room."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.server.world import World, serving


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    """A front with everything locked. LFS files are not held yet, small ones are."""
    async with serving(tmp_path) as made:
        await made.lock()
        yield made
