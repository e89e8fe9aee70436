"""`log:` in hubpin.yaml, as the commands and the process that downloads write it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import hubpin, process
from tests.cli.test_background import wait_ready


def test_every_line_of_a_server_is_json(site: Path) -> None:
    with (site / "hubpin.yaml").open("a") as config:
        config.write("log: json\n")
    with (site / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-P", "-m", "proxy", "serve"], stderr=log)
    try:
        wait_ready(site)
    finally:
        server.terminate()
        assert server.wait(30) == 0
    said = [json.loads(line) for line in (site / "log").read_text().splitlines()]
    assert any("listening on" in one["message"] for one in said)
    assert {"time", "level", "logger", "message"} <= said[0].keys()


def test_text_is_the_default(site: Path) -> None:
    (site / "allowlist.yaml").write_text("allow:\n  - acme/nobody@main\n")
    assert " DEBUG " in process("-vv", "status").err


def test_another_format_is_wrong_input(site: Path) -> None:
    (site / "hubpin.yaml").write_text("log: xml\n")
    said = hubpin("status")
    assert said.status == 2
    assert "hubpin.yaml:1" in said.err
