"""hubpin audit, as an auditor types it."""

from __future__ import annotations

from pathlib import Path

from proxy.pins import lock as locks
from proxy.telemetry.audit import Audit, Handed, Served
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


def test_what_nginx_was_told_to_send_is_called_that(site: Path) -> None:
    hubpin("lock")
    pin = next(iter(locks.load(site / "allowlist.lock").pins.values()))
    large = pin.files["model.safetensors"]
    audit = Audit(site / "hubpin-data")
    audit.note(
        Handed(
            device="10.0.8.17", request="r", agent="curl", repo=large.repo,
            commit=large.commit, path=large.path, digest=large.digest, size=large.size,
            start=0, stop=large.size,
        )
    )  # fmt: skip
    audit.close()
    said = hubpin("audit").out
    assert "part of" in said
    assert ", 1 more handed to nginx" in said
    take(site, *(path for path in pin.files if path != large.path))
    said = hubpin("audit").out
    assert f"handed   {PAIR}" in said
    assert "nginx, whose log" in said
    assert "all of" not in said
    (event, _) = hubpin("audit", "--json").events()
    assert (event["complete"], event["handed_files"], event["missing"]) == (False, 1, [])


def test_an_older_lock_knows_older_commits(site: Path) -> None:
    hubpin("lock")
    take(site)
    (site / "allowlist.lock").rename(site / "old.lock")
    assert "which no lock here has" in hubpin("audit").out
    events = hubpin("audit", "--lock", "old.lock", "--json").events()
    assert [event["event"] for event in events] == ["took", "read"]
    assert events[0]["complete"] is True


def test_a_time_that_is_none_is_wrong_input(site: Path) -> None:
    for text in ("yesterday", "1", "2026-13-01", "0001-01-01", "9999-12-31T23:59-23:00"):
        said = hubpin("audit", "--since", text)
        assert said.status == 2
        assert "2026-03-01" in said.err
    assert hubpin("audit", "--lock", "nowhere.lock").status == 2
