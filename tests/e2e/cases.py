"""Which acceptance case a test shows with which client, and the table at the end of a run.

    @pytest.mark.case("A21", "A22", client="@huggingface/hub 2.17.5")

A test with the fixture `client` that is named after its cases (`test_a01_a02_…`) needs no marker.
`pytest --cases FILE` writes what the collected tests show, as JSON, for docs/clients.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/clients.md"
_BEGIN = "<!-- cases: `make clients-doc` writes this -->"
_END = "<!-- /cases -->"
_NAME = re.compile(r"test_((?:a\d\d_)+)")
_CASE = re.compile(r"A\d\d|CORS|files|model")
_BY_NAME = "by hand"  # requests that a test sends itself
_MARKS = {"passed": "ok", "failed": "FAIL", "error": "FAIL", "skipped": "skip"}
SHOWN: pytest.StashKey[dict[str, list[tuple[str, str]]]] = pytest.StashKey()

Table = Mapping[str, Mapping[str, str]]  # client → case → what is known


def shown(item: pytest.Item) -> list[tuple[str, str]]:
    """(client, case) for everything that a test shows. Raises: ValueError, for a wrong marker."""
    found = [
        (str(mark.kwargs["client"]), str(case))
        for mark in item.iter_markers("case")
        for case in mark.args
    ]
    named = _NAME.match(item.name)
    if named and not found:
        call = getattr(item, "callspec", None)
        client = str(call.params["client"]) if call and "client" in call.params else _BY_NAME
        client = re.sub(r"^hub-", "huggingface_hub-", client)
        client = re.sub(r"-(?=\d)", " ", client, count=1)
        found = [(client, case.upper()) for case in named[1].rstrip("_").split("_")]
    for _, case in found:
        if not _CASE.fullmatch(case):
            raise ValueError(f"{item.nodeid}: {case!r} is not the number of a case")
    return found


def cases_by_client(items: Iterable[pytest.Item]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for item in items:
        for client, case in shown(item):
            found.setdefault(client, set()).add(case)
    return {client: sorted(cases) for client, cases in sorted(found.items())}


def render(table: Table) -> str:
    """The table as text: a client a line, and what each case came to."""
    width = max(len(client) for client in table)
    lines = []
    for client, cases in sorted(table.items()):
        results = "  ".join(f"{case} {result}" for case, result in sorted(cases.items()))
        lines.append(f"{client:{width}}  {results}")
    return "\n".join(lines)


# --- pytest's hooks, for conftest.py -------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=Path, metavar="FILE", help="write client → cases to FILE")


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    config.stash[SHOWN] = {item.nodeid: shown(item) for item in items}
    file: Path | None = config.getoption("--cases", None)
    if file is not None:
        file.write_text(json.dumps(cases_by_client(items)))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    known = config.stash.get(SHOWN, {})
    table: dict[str, dict[str, str]] = {}
    for outcome, mark in _MARKS.items():
        for report in terminalreporter.stats.get(outcome, []):
            for client, case in known.get(getattr(report, "nodeid", ""), []):
                cases = table.setdefault(client, {})
                if cases.get(case) != "FAIL":
                    cases[case] = mark
    if table:
        terminalreporter.section("client x case")
        terminalreporter.write_line(render(table))


# --- docs/clients.md -----------------------------------------------------------------------------


def document(text: str, shown_by: Mapping[str, Sequence[str]]) -> str:
    """The page with its table as the tests have it."""
    rows = [f"| {client} | {', '.join(cases)} |" for client, cases in shown_by.items()]
    table = "\n".join(["| client | cases |", "| --- | --- |", *rows])
    known = {case for cases in shown_by.values() for case in cases}
    missing = sorted({f"A{number:02}" for number in range(1, 43)} - known)
    if missing:
        table += f"\n\nNot shown with a real client here: {', '.join(missing)}."
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}\n\n{table}\n\n{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":  # python -m tests.e2e.cases FILE
    DOCUMENT.write_text(document(DOCUMENT.read_text(), json.loads(Path(sys.argv[1]).read_text())))
