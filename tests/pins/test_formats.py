"""`formats:` keeps kinds of files away from everybody: not locked, not listed, not served."""

from __future__ import annotations

import pytest

from proxy.errors import ConfigError, EntryNotFound, FormatDenied
from proxy.pins import allowlist, lock
from tests.pins.examples import catalog_of, lock_of, pin

POLICY = 'formats: {deny: [".bin", ".PT"]}\nallow: [org/m@main]\n'
FILES = {"config.json": b"{}", "model.bin": b"x", "Old.PT": b"y", "model.safetensors": b"z"}


def test_denied_files_of_a_lock_are_served_no_more() -> None:
    snapshot = next(catalog_of(POLICY, pin(files=FILES)).snapshots())
    assert set(snapshot.files) == {"config.json", "model.safetensors"}
    for path in ("model.bin", "Old.PT", "never.bin"):
        with pytest.raises(FormatDenied, match="serves no"):
            snapshot.entry(path)
    with pytest.raises(EntryNotFound):
        snapshot.entry("other.json")


def test_endings_are_compared_in_any_case() -> None:
    (one,) = allowlist.loads(POLICY).allowed
    assert one.denied == (".bin", ".pt")
    assert one.denies("a/B.BIN") == ".bin"
    assert one.denies("a.bin/b") is None


@pytest.mark.parametrize(
    "text",
    ["deny: [bin]", "deny: ['*.bin']", "deny: .bin", "allow: ['.bin']", "deny: ['.']"],
)
def test_what_is_no_ending_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"formats|deny"):
        allowlist.loads(f"formats: {{{text}}}\nallow: [org/m@main]\n")


def test_a_lock_without_a_policy_has_the_bytes_that_it_had() -> None:
    assert b"denied" not in lock.dumps(lock_of(pin()))


def test_a_pin_remembers_what_it_was_locked_without() -> None:
    (one,) = allowlist.loads(POLICY).allowed
    (free,) = allowlist.loads("allow: [org/m@main]\n").allowed
    text = lock.dumps(lock_of(pin(files={"config.json": b"{}"})))
    without = text.replace(b'"exclude"', b'"denied": [".bin"],\n   "exclude"')
    (held,) = lock.loads(without).pins.values()
    assert held.denied == (".bin",)
    assert lock.loads(lock.dumps(lock_of(held))).pins[held.pair] == held
    assert one.fits(held)
    assert not free.fits(held), "it may lack files"
    assert not one.fits(pin(files=FILES)), "it has files that are denied"
