"""How end-to-end tests are marked, and for which clients they run."""

from __future__ import annotations

import pytest

from tests.e2e.clients import HUBS

# The first test waits for pip, which has a deadline of its own.
E2E = [pytest.mark.e2e, pytest.mark.timeout(120, func_only=True)]

every_client = pytest.mark.parametrize("client", HUBS, indirect=True)


def only(*names: str) -> pytest.MarkDecorator:
    """Run with these clients; the name of the test shows which."""
    return pytest.mark.parametrize("client", names, indirect=True)
