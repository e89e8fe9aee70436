"""docs/faults.md says what the tests say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.matrix import DOCUMENT, NOT_RUN, ROOT, ROWS, Row, read, render

ROW = Row("U08", "A fault.", "It heals.", "tests/faults/test_x.py::test_u08_it_heals", "pass")


def test_the_document_has_the_rows_that_the_tests_have(request: pytest.FixtureRequest) -> None:
    """If this fails, run `make faults-doc`."""
    collected = list(request.session.config.stash[ROWS].values())
    files = {row.file for row in collected}
    if any("::" in argument for argument in request.config.args):
        pytest.skip("only some tests of a file were asked for")
    written = [row for row in read(DOCUMENT) if row.file in files]
    blank = [replace(row, result="") for row in written]
    assert blank == sorted((replace(row, result="") for row in collected), key=lambda r: r.order)


def test_no_row_is_forgotten() -> None:
    wanted = {f"U{n:02d}" for n in range(1, 56)} | {f"C{n:02d}" for n in range(1, 8)}
    wanted |= {f"K{n:02d}" for n in range(1, 6)}
    written = {row.id: row.test for row in read(DOCUMENT)}
    assert sorted(wanted - written.keys()) == []
    assert [row.test for row in read(DOCUMENT) if f"::test_{row.id.lower()}_" not in row.test] == []


def test_the_document_names_no_test_that_is_gone() -> None:
    for row in read(DOCUMENT):
        file, _, function = row.test.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(), row.test


def test_every_row_of_the_document_passed() -> None:
    assert [row.test for row in read(DOCUMENT) if row.result not in ("pass", "skipped")] == []


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, id="C01", result=NOT_RUN), replace(ROW, id="U02", result="FAIL")]
    document = tmp_path / "faults.md"
    document.write_text(render(rows))
    assert read(document) == [rows[2], rows[0], rows[1]]
