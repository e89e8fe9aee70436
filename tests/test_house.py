"""Rules of this code base that a machine can check."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from proxy.cli.main import COMMANDS
from proxy.config import Config, Timeouts, UpstreamConfig

ROOT = Path(__file__).parent.parent
PROXY = sorted(path.relative_to(ROOT) for path in ROOT.glob("proxy/**/*.py"))
MODULES = PROXY + sorted(path.relative_to(ROOT) for path in ROOT.glob("tests/**/*.py"))
DECISIONS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
FRAGMENTS = sorted({*(ROOT / "changelog").glob("*.md")} - {ROOT / "changelog/README.md"})
READMES = ("README.md", "README.zh.md")
# What stands in hubpin.yaml, where it is not the name of the field; None: nothing.
WRITTEN = {"file": None, "token": "token_file"}
KEYS = sorted(
    {
        WRITTEN.get(field.name, field.name) or ""
        for kind in (Config, UpstreamConfig, Timeouts)
        for field in dataclasses.fields(kind)
    }
    - {""}
)


def text_of(module: Path) -> str:
    return (ROOT / module).read_text(encoding="utf-8")


# --- code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_fits_in_the_head(module: Path) -> None:
    assert len(text_of(module).splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_says_what_lives_in_it(module: Path) -> None:
    text = text_of(module)
    assert not text or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("module", PROXY, ids=str)
def test_only_config_reads_the_environment(module: Path) -> None:
    if module.name != "config.py":
        assert not re.search(r"\bgetenv\b|\benvironb?\b", text_of(module))


@pytest.mark.parametrize("module", PROXY, ids=str)
def test_only_the_command_line_prints(module: Path) -> None:
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(text_of(module)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "input")
    ]
    assert module.parts[1] == "cli" or not calls


@pytest.mark.parametrize("module", PROXY, ids=str)
def test_a_bug_is_never_swallowed(module: Path) -> None:
    """Whoever catches everything raises it again."""
    for node in ast.walk(ast.parse(text_of(module))):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else "BaseException"
        if re.search(r"\b(Base)?Exception\b", caught):
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert raises, f"line {node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_an_ignored_type_error_has_its_code_and_a_reason(module: Path) -> None:
    for number, line in enumerate(text_of(module).splitlines(), 1):
        if re.search(r"#\s*type" r":\s*ignore", line):
            assert re.search(r"# type" r": ignore\[[a-z\-, ]+\]  # \S", line), f"line {number}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_work_left_to_do_names_its_issue(module: Path) -> None:
    for number, line in enumerate(text_of(module).splitlines(), 1):
        if re.search(r"#.*\b(TO" r"DO|FIX" r"ME|X" r"XX)\b", line):
            assert re.search(r"#\d+", line), f"line {number}"


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("readme", READMES)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_the_configuration_is_in_the_readme(key: str, readme: str) -> None:
    assert re.search(rf"`{key}`|\b{key}:", text_of(Path(readme)))


@pytest.mark.parametrize("readme", READMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_in_the_readme(command: str, readme: str) -> None:
    assert re.search(rf"\bhubpin {command}\b", text_of(Path(readme)))


@pytest.mark.parametrize("file", DECISIONS, ids=lambda file: file.name)
def test_a_decision_is_one_page_with_four_parts(file: Path) -> None:
    lines = file.read_text().splitlines()
    parts = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert parts == ["Context", "Decision", "Consequences", "Rejected"]
    assert lines[0].startswith(f"# {file.name[:4]}: ")
    assert len(lines) <= 60


@pytest.mark.parametrize("file", FRAGMENTS, ids=lambda file: file.name)
def test_a_fragment_of_the_changelog_says_its_kind(file: Path) -> None:
    assert re.match(r"(Added|Changed|Fixed|Security): \S", file.read_text())
