"""Which row of the fault matrix a test shows, and docs/faults.md, the table that is made of them.

    @pytest.mark.row("U08", "The CDN resets the connection half way.", "The body goes on.")
    def test_u08_a_reset_half_way_is_resumed(…):

Where the docstring is the fault, it need not be written twice: `row("U08", behaviour="…")`.
`pytest --matrix docs/faults.md` writes the table; rows of tests that did not run keep their result.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/faults.md"
NOT_RUN = "not run"
_KINDS = {
    "U": "What an upstream does",
    "P": "What happens to the process and its host",
    "C": "What clients do",
    "K": "What the operator writes",
}
_ID = re.compile(rf"[{''.join(_KINDS)}]\d\d")
_INTRODUCTION = """\
# What hubpin survives

Every fault here is switched on in a test, against a real mirror process, a real socket and a real
disk. This table is made from those tests by `make faults-doc`, and a test compares it with them.

**Right** means a complete answer with exactly the locked bytes. **Clean** means an error status, or
fewer bytes than `Content-Length` announced and an orderly end of the connection, so that a client
notices and comes again. A complete answer with other bytes, a reset connection and an answer that
never comes are failures in every row. Every row about an upstream also asks for this: when the
fault is over, the file is served right without a restart, half of a download that a client kept is
completed to the right bytes, at most 60 requests went upstream, and neither the upstream's token
nor the client's appears in a log, an answer, a metric, the data directory or at the CDN.
"""
_LINE = re.compile(r"\| (?P<id>\w+) \| (?P<fault>.*) \| (?P<behaviour>.*) \| `(?P<test>[^`]*)` \| "
                   r"(?P<result>.*) \|")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One test of the matrix."""

    id: str
    fault: str
    behaviour: str
    test: str  # its file and function, as pytest names them
    result: str = NOT_RUN  # pass, FAIL, skipped or not run

    @property
    def file(self) -> str:
        return self.test.partition("::")[0]

    @property
    def order(self) -> tuple[int, str, str]:
        return list(_KINDS).index(self.id[0]), self.id, self.test

    def __str__(self) -> str:
        return f"| {self.id} | {self.fault} | {self.behaviour} | `{self.test}` | {self.result} |"


ROWS: pytest.StashKey[dict[str, Row]] = pytest.StashKey()


def row_of(item: pytest.Item) -> Row | None:
    """The row that a collected test shows. Raises: ValueError, for a marker that is incomplete."""
    marker = item.get_closest_marker("row")
    if marker is None:
        return None
    given: dict[str, object] = {
        **dict(zip(("id", "fault", "behaviour"), marker.args, strict=False)),
        **marker.kwargs,
    }
    function = getattr(item, "function", None)
    fault = given.get("fault") or (getattr(function, "__doc__", None) or "").partition("\n\n")[0]
    text = {"id": given.get("id", ""), "fault": fault, "behaviour": given.get("behaviour", "")}
    lines = {key: " ".join(str(value).split()).replace("|", "/") for key, value in text.items()}
    if not _ID.fullmatch(lines["id"]) or not all(lines.values()):
        raise ValueError(f"{item.nodeid}: row(id, fault, behaviour), not {given}")
    return Row(**lines, test=item.nodeid.partition("[")[0])


def read(document: Path) -> list[Row]:
    if not document.exists():
        return []
    return [Row(**match.groupdict()) for match in _LINE.finditer(document.read_text("utf-8"))]


def render(rows: Iterable[Row]) -> str:
    ordered = sorted(rows, key=lambda row: row.order)
    passed = sum(row.result == "pass" for row in ordered)
    text = f"{_INTRODUCTION}\n{len(ordered)} tests; {passed} passed when they ran last.\n"
    for kind, title in _KINDS.items():
        lines = [str(row) for row in ordered if row.id[0] == kind]
        if lines:
            head = "| row | fault | what hubpin does | test | last run |\n|---|---|---|---|---|"
            text += "\n".join([f"\n## {title}\n", head, *lines, ""])
    return text


# --- pytest's hooks ------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", type=Path, metavar="FILE", help="write the fault matrix to FILE")


@pytest.hookimpl(tryfirst=True)  # before anything is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    found = [row for row in map(row_of, items) if row is not None]
    config.stash[ROWS] = {row.test: row for row in found}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    rows = item.config.stash.get(ROWS, {})
    row = rows.get(item.nodeid.partition("[")[0])
    if row is not None:
        rows[row.test] = replace(row, result=_result(row.result, report))
    return report


def _result(before: str, report: pytest.TestReport) -> str:
    """A test passes if its set-up, all its examples and its clean-up do."""
    if report.failed or before == "FAIL":
        return "FAIL"
    if report.skipped:
        return "skipped"
    return "pass" if report.when == "call" else before


def pytest_sessionfinish(session: pytest.Session) -> None:
    document: Path | None = session.config.getoption("--matrix")
    if document is None:
        return
    now = session.config.stash[ROWS]
    known = {row.test: row for row in read(document) if (ROOT / row.file).exists()}
    files = {row.file for row in now.values()}
    kept = {test: row for test, row in known.items() if row.file not in files}
    results = {test: row.result for test, row in known.items()}
    fresh = {
        test: row if row.result != NOT_RUN else replace(row, result=results.get(test, NOT_RUN))
        for test, row in now.items()
    }
    document.write_text(render((kept | fresh).values()), encoding="utf-8")
