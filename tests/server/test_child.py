"""Processes of ours run this package, and nothing that lies in the working directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

from proxy.server import child


def test_a_folder_of_our_name_in_the_working_directory_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__init__.py").write_text("print('somebody else')\n")
    ran = subprocess.run(
        child.command("proxy", "--help"), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "somebody else" not in ran.stdout
    assert "warm" in ran.stdout
