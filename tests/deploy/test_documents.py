"""What the READMEs say about settings is what the code does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from proxy import config as configs
from proxy.cli import env
from proxy.cli.env import Shell
from proxy.config import Config, UpstreamConfig
from tests.deploy.fronts import DEPLOY

TOP = DEPLOY.parent
DOCUMENTS = sorted(
    {*TOP.glob("*.md"), *(TOP / "docs").glob("*.md"), *DEPLOY.glob("*.md")} - {TOP / "CHANGELOG.md"}
)
readme = pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])


@readme
@pytest.mark.parametrize("shell", [Shell.SH, Shell.POWERSHELL, Shell.CMD])
def test_the_lines_for_a_device_are_those_of_hubpin_env(readme: str, shell: Shell) -> None:
    lines = env.lines(shell, "http://mirror:8090")
    assert "\n".join(["", *lines, "```"]) in (TOP / readme).read_text()


@readme
def test_defaults_are_those_of_the_code(readme: str, tmp_path: Path) -> None:
    """The first column and the second of the table, read as a hubpin.yaml."""
    rows = _defaults(readme)
    keys = [key for key in rows if key in {one.name for one in dataclasses.fields(Config)}]
    file = tmp_path / "hubpin.yaml"
    file.write_text("".join(f"{key}: {rows[key]}\n" for key in keys))
    said, default = configs.load(file), Config()
    assert {*keys, "contact", "file"} == {one.name for one in dataclasses.fields(Config)}
    for key in keys:
        want, got = getattr(default, key), getattr(said, key)
        # By what they show: two secrets never compare equal.
        assert repr(got) == repr(tmp_path / want if isinstance(want, Path) else want), key
    given = UpstreamConfig(default.upstreams[0].url)
    for key in ("connections", "authoritative"):
        assert rows[key] == str(getattr(given, key)).lower()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def _defaults(readme: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (TOP / readme).read_text().splitlines():
        row = re.match(r"\| `(\w+)` \| `([^`]+)`", line)
        if row is not None:
            found.setdefault(row[1], row[2])
    return found
