"""How every test runs: a fixed number of examples, the same ones in CI, and nobody's settings."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.matrix"]

settings.register_profile(
    "house",
    deadline=None,  # a machine shared with others stalls now and then
    max_examples=100,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment holds no HUBPIN_ variable of the person who runs this."""
    for name in list(os.environ):
        if name.startswith("HUBPIN_"):
            monkeypatch.delenv(name)
