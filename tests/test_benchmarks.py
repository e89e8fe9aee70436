"""The measurements run; how fast anything is, nobody asks here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import rig
from benchmarks.client import percentile
from benchmarks.rig import Spread, Table
from tests.deploy.engines import engine

ROOT = Path(__file__).parent.parent


def test_a_quick_measurement_runs_and_writes_what_it_found() -> None:
    engine("nginx")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "readers"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| memory for each |" in done.stdout
    written = json.loads((rig.RESULTS / "readers-quick.json").read_text())
    assert written["samples"]["readers"]["hubpin"][0]["memory"] < 1 << 20


def test_an_unknown_measurement_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main(["--quick", "wram"]) == 2
    assert "wram" in capsys.readouterr().out


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_every_measurement_is_a_module(name: str) -> None:
    assert (ROOT / "benchmarks" / f"{name}.py").exists()


def test_each_round_asks_everybody_once() -> None:
    asked: list[str] = []

    def ask(name: str) -> rig.Sample:
        asked.append(name)
        return {"n": len(asked)}

    found = rig.rounds(3, {"a": lambda: ask("a"), "b": lambda: ask("b")})
    assert [sorted(asked[start : start + 2]) for start in (0, 2, 4)] == [["a", "b"]] * 3
    assert rig.ratio(found, "a", "a", "n") == Spread(1, 1, 1)


def test_a_difference_that_twins_show_too_is_no_verdict() -> None:
    table = Table("t", "")
    for value in (1.0, 0.95, 0.8):
        table.least("rate", Spread.of([value]), 1.0, band=0.9)
    assert [row.verdict for row in table.rows] == ["met", "inconclusive", "**missed**"]


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([1.0], 0.5) == 1.0
