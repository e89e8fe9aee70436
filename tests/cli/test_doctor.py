"""hubpin doctor, as a person types it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import hubpin


def test_a_locked_site_has_no_failure(site: Path) -> None:
    hubpin("lock")
    said = hubpin("doctor")
    assert said.status == 0
    assert "FAIL" not in said.out
    assert "hubpin start" in said.out


def test_what_to_do_stands_below_what_is_wrong(site: Path) -> None:
    lines = hubpin("doctor").out.splitlines()
    (at,) = (at for at, line in enumerate(lines) if "not locked" in line)
    assert lines[at].startswith("warn  lock")
    assert lines[at + 1].strip() == "→ hubpin lock"


def test_a_broken_configuration_fails_with_its_line(site: Path) -> None:
    (site / "hubpin.yaml").write_text("contact: me\nlisten: nowhere\n")
    said = hubpin("doctor")
    assert said.status == 1
    assert said.out.startswith("FAIL  configuration")
    assert "hubpin.yaml:2" in said.out


def test_the_findings_are_json_lines(site: Path) -> None:
    said = hubpin("doctor", "--json")
    first, *_, last = said.events()
    assert first["event"] == "checked"
    assert (first["verdict"], first["what"]) == ("ok", "configuration")
    assert last["event"] == "finished"
    assert last["failed"] == 0
    assert said.status == 0
