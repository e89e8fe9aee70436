"""Which catalog is in force, as several processes see it."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.pins.versions import Shared, Texts, Told

ONE = Texts("allow:\n  - acme/one@main\n", None)
TWO = Texts("allow:\n  - acme/zwei@main # ä\n", b'{"version": 1, "pins": {}}\n')


@pytest.fixture
def main() -> Generator[Shared]:
    shared = Shared.make()
    yield shared
    shared.close()


@pytest.fixture
def shared(main: Shared) -> Generator[Shared]:
    """The same memory, as another process has it."""
    other = Shared(os.dup(main.fd))
    yield other
    other.close()


def listed(told: Told) -> list[str]:
    return [str(one.repo) for one in told.catalog.unlocked()]


@pytest.mark.parametrize("texts", [ONE, TWO])
def test_texts_come_over_as_they_are(main: Shared, shared: Shared, texts: Texts) -> None:
    main.write(TWO)
    assert shared.read(*main.write(texts)) == texts


def test_a_catalog_is_in_force_when_the_number_says_so(main: Shared, shared: Shared) -> None:
    told = Told(shared, Path("allowlist.yaml"), Path("allowlist.lock"))
    told.load(1, main.write(ONE))
    main.number = 1
    assert listed(told) == ["acme/one"]
    told.load(2, main.write(TWO))
    told.forget()
    assert listed(told) == ["acme/one"]
    main.number = 2
    assert listed(told) == ["acme/zwei"]
    told.forget()
    assert listed(told) == ["acme/zwei"]


def test_texts_that_are_cut_short_are_an_error(main: Shared, shared: Shared) -> None:
    allowlist, lock = main.write(TWO)
    with pytest.raises(ConfigError, match="ends early"):
        shared.read(allowlist, lock + 1)
