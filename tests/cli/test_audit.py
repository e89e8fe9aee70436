"""hubpin audit, as an auditor types it."""

from __future__ import annotations

from pathlib import Path

from proxy.pins import lock as locks
from proxy.telemetry.audit import Audit, Served
from tests.cli.conftest import PAIR, hubpin


def take(site: Path, *paths: str) -> None:
    pin = next(iter(locks.load(site / "allowlist.lock").pins.values()))
    audit = Audit(site / "hubpin-data")
    for path in paths or tuple(pin.files):
        entry = pin.files[path]
        audit.note(
            Served(
                device="10.0.8.17", request="r", agent="curl", repo=entry.repo,
                commit=entry.commit, path=entry.path, digest=entry.digest, size=entry.size,
                start=0, stop=entry.size, sent=entry.size, complete=True,
            )
        )  # fmt: skip
    audit.close()


def test_it_tells_what_a_device_has(site: Path) -> None:
    hubpin("lock")
    take(site, "config.json")
    assert "part of" in hubpin("audit", "--device", "10.0.8.17").out
    take(site)
    said = hubpin("audit", "--device", "10.0.8.17", "--since", "2020-01-01")
    assert said.status == 0
    assert f"all of   {PAIR}" in said.out
    assert "nothing was taken" in hubpin("audit", "--device", "10.0.8.18").out


def test_an_older_lock_knows_older_commits(site: Path) -> None:
    hubpin("lock")
    take(site)
    (site / "allowlist.lock").rename(site / "old.lock")
    assert "which no lock here has" in hubpin("audit").out
    events = hubpin("audit", "--lock", "old.lock", "--json").events()
    assert [event["event"] for event in events] == ["took", "read"]
    assert events[0]["complete"] is True


def test_a_time_that_is_none_is_wrong_input(site: Path) -> None:
    for text in ("yesterday", "1", "2026-13-01"):
        said = hubpin("audit", "--since", text)
        assert said.status == 2
        assert "2026-03-01" in said.err
    assert hubpin("audit", "--lock", "nowhere.lock").status == 2
