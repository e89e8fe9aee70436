"""docs/clients.md says what the tests show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.cases import DOCUMENT, ROOT, document

_NUMBERS = {f"A{number:02}" for number in range(1, 43)}


def collected(tmp_path: Path) -> dict[str, list[str]]:
    file = tmp_path / "cases.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider",
         "--cases", str(file), "tests/e2e"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    shown: dict[str, list[str]] = json.loads(file.read_text())
    return shown


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    shown = collected(tmp_path)
    assert DOCUMENT.read_text() == document(DOCUMENT.read_text(), shown), "make clients-doc"


def test_every_case_is_shown_or_its_absence_explained() -> None:
    text = DOCUMENT.read_text()
    missing = {number for number in _NUMBERS if number not in text}
    assert not missing
