"""allowlist.yaml: what a human wrote, or an error with the line that is wrong."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import ConfigError
from proxy.hub.names import Pair, RepoId, RepoPath
from proxy.pins import allowlist
from proxy.pins.allowlist import Allowed, Allowlist


def loads(text: str) -> Allowlist:
    return allowlist.loads(dedent(text))


def only(text: str) -> Allowed:
    (one,) = loads(text).allowed
    return one


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    return str(caught.value)


# --- entries -------------------------------------------------------------------------------------


def test_the_short_form_is_a_pair_and_nothing_else() -> None:
    one = only("allow: [datasets/rajpurkar/squad@main]")
    assert one == Allowed(RepoId("datasets/rajpurkar/squad"), one.revision, 1)
    assert one.pair == "datasets/rajpurkar/squad@main"
    assert one.serve_as is None


def test_the_long_form_says_everything() -> None:
    one = only("""\
        allow:
          - repo: org/m
            revision: refs/pr/7
            serve_as: [main, stable]
            include: ["*.json"]
            exclude: ["*.bin", "*.pt"]
            notice: "Only for research."
            share: lan
            keep: true
            warm: true
        """)
    assert one.pair == "org/m@refs/pr/7"
    assert one.line == 2
    assert one.serve_as == ("main", "stable")
    assert one.include == ("*.json",)
    assert one.exclude == ("*.bin", "*.pt")
    assert one.notice == "Only for research."
    assert one.share_lan
    assert one.keep
    assert one.warm


def test_the_order_is_the_one_that_was_written() -> None:
    held = loads("allow:\n  - b/b@x\n  - a/a@x\n  - repo: b/b\n    revision: a\n")
    assert [one.pair for one in held.allowed] == ["b/b@x", "a/a@x", "b/b@a"]
    assert [one.pair for one in held.of(RepoId("b/b"))] == ["b/b@x", "b/b@a"]
    second = held.get(Pair("a/a@x"))
    assert second is not None
    assert second.line == 3
    assert held.get(Pair("a/a@y")) is None


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "allow:\n", "allow: []", "---\n"])
def test_nothing_written_allows_nothing(text: str) -> None:
    assert loads(text) == Allowlist()


@pytest.mark.parametrize(
    "revision", ["no", "yes", "true", "0123456", "1.10", "2024-01-01", "null", "1e3", "0x1f"]
)
def test_a_revision_is_the_text_that_was_written(revision: str) -> None:
    assert only(f"allow: [{{repo: org/m, revision: {revision}}}]").revision == revision
    assert only(f"allow: [org/m@{revision}]").revision == revision


def test_saying_nothing_about_serve_as_differs_from_saying_none() -> None:
    assert only("allow: [{repo: a/b, revision: v1}]").serve_as is None
    assert only("allow: [{repo: a/b, revision: v1, serve_as: []}]").serve_as == ()


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("allow:\n  - a/b@main\n  - a/b@main\n", 3, "listed twice (first on line 2)"),
        ("allow:\n  - a/b@main\n  - repo: a/b\n    revision: main\n", 3, "listed twice"),
        ("allow: []\nallow: []\n", 2, "duplicate key 'allow' (first on line 1)"),
        ("allow:\n  - repo: a/b\n    repo: a/c\n", 3, "duplicate key 'repo'"),
        ("alow: []\n", 1, "has no key 'alow'; it knows: allow"),
        ("allow: []\ndeny: []\n", 2, "has no key 'deny'"),
        ("allow:\n  - repo: a/b\n    revision: x\n    serve-as: [y]\n", 4, "no key 'serve-as'"),
        ("allow:\n  - repo: a/b\n    rev: main\n", 2, "no 'revision'"),
        ("allow:\n  - revision: main\n", 2, "no 'repo'"),
        ("allow: a/b@main\n", 1, "must be a list, not a text"),
        ("allow: {a/b: main}\n", 1, "must be a list, not a mapping"),
        ("- a/b@main\n", 1, "must be a mapping, not a list"),
        ("just text\n", 1, "must be a mapping, not a text"),
        ("allow:\n  - a/b@main\n  - [a/b@v1]\n", 3, "must be a mapping, not a list"),
        ("allow:\n  - a/b@main\n  - a/b\n", 3, "write repo@revision"),
        ("allow:\n  - a/../b@main\n", 2, "not a valid repository"),
        ("allow:\n  - a/b@ma..in\n", 2, "not a valid revision"),
        ("allow:\n  - https://huggingface.co/a/b@main\n", 2, "not a valid repository"),
        ("allow:\n  -\n", 2, "not a valid pair"),
        ("allow:\n  - repo: a/b\n    revision: [main]\n", 3, "revision: must be a text"),
        ("allow:\n  - repo: a/b\n    revision: v\n    include: '*.json'\n", 4, "must be a list"),
        ("allow:\n  - repo: a/b\n    revision: v\n    include:\n      - {a: b}\n", 5, "a text"),
        ("allow:\n  - repo: a/b\n    revision: v\n    include: ['']\n", 4, "matches no file"),
        ("allow:\n  - repo: a/b\n    revision: v\n    exclude: [a, '']\n", 4, "matches no file"),
        ("allow:\n  - repo: a/b\n    revision: v\n    keep: yes\n", 4, "must be true or false"),
        ("allow:\n  - repo: a/b\n    revision: v\n    share: wan\n", 4, "one of no, lan"),
        ("allow:\n  - repo: a/b\n    revision: v\n    serve_as: [a..b]\n", 2, "valid revision"),
        (f"allow:\n  - repo: a/b\n    revision: v\n    serve_as: [{'a' * 40}]\n", 4, "is a commit"),
        ("allow:\n  - &x a/b@main\n", 2, "anchors"),
        ("allow:\n  - *x\n", 2, "aliases"),
        ("allow:\n  - !!str a/b@main\n", 2, "tags"),
        ("allow:\n  - ! a/b@main\n", 2, "tags"),
        ("allow: []\n---\nallow: []\n", 2, "second document"),
        ("allow:\n  - a/b@main\n  - 'a/b\n", 4, "not YAML"),
        ("allow:\n\t- a/b@main\n", 2, "not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_and_line(text: str, line: int, said: str) -> None:
    message = refused(text)
    assert message.startswith(f"allowlist.yaml:{line}: ")
    assert said in message


def test_two_entries_cannot_answer_for_one_revision() -> None:
    message = refused("""\
        allow:
          - {repo: a/b, revision: v1, serve_as: [main]}
          - {repo: a/b, revision: v2, serve_as: [main]}
        """)
    assert message.startswith("allowlist.yaml:3: ")
    assert "a/b@main is already answered by a/b@v1 (line 2)" in message


def test_an_entry_cannot_answer_for_a_revision_that_is_listed_itself() -> None:
    message = refused("""\
        allow:
          - {repo: a/b, revision: v1, serve_as: [main]}
          - a/b@main
        """)
    assert "a/b@main is already answered by a/b@main (line 3)" in message


def test_the_same_answer_for_two_repositories_is_fine() -> None:
    assert len(loads("""\
        allow:
          - {repo: a/b, revision: v1, serve_as: [main, v1]}
          - {repo: a/c, revision: v1, serve_as: [main]}
          - {repo: datasets/a/b, revision: v1, serve_as: [main]}
        """).allowed) == 3  # fmt: skip


def test_a_file_is_named_when_it_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "allowlist.yaml"
    with pytest.raises(ConfigError, match=r"allowlist\.yaml: cannot be read"):
        allowlist.load(file)
    file.write_text("allow: [a/b@main]\n")
    assert [one.pair for one in allowlist.load(file).allowed] == ["a/b@main"]


PIECES = st.lists(
    st.sampled_from(
        ["allow:", "allow", "\n", "\n  - ", "a/b@main", "repo: a/b", "revision: v1", "serve_as:",
         "\n    ", "[main]", "[", "]", "{", "}", ", ", "&a ", "*a", "!!str ", "---", "...", "|\n",
         "'", '"', "\t", ": ", "? ", "#", "\0", "é", "\ud800", "%YAML 9.9\n", "<<: "]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(PIECES | st.text(max_size=40))
@example("[" * 5000)
@example("{a: " * 5000)
@example("? " * 5000)
@example("allow: " + "- " * 5000)
@example("allow: [" + "9" * 5000 + "]")
@example("allow: [a/b@" + "9" * 5000 + "]")
def test_any_text_is_an_allowlist_or_our_own_error(text: str) -> None:
    try:
        assert isinstance(allowlist.loads(text), Allowlist)
    except ConfigError as e:
        str(e).encode()
        assert str(e).startswith("allowlist.yaml")
        assert len(str(e)) < 1000


# --- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("include", "exclude", "path", "admitted"),
    [
        ([], [], "a/b.bin", True),
        (["*.json"], [], "config.json", True),
        (["*.json"], [], "a/b/config.json", True),  # a star also matches a slash
        (["*.json"], [], "config.JSON", False),
        (["*.json"], [], "config.json.bak", False),
        (["config.json"], [], "a/config.json", False),
        (["onnx/"], [], "onnx/a/model.onnx", True),  # a folder and all below it
        (["onnx/"], [], "onnx2/model.onnx", False),
        (["onnx"], [], "onnx/model.onnx", False),
        (["*/model.bin"], [], "model.bin", False),
        (["model-0000[12].bin"], [], "model-00002.bin", True),
        (["model-?.bin"], [], "model-10.bin", False),
        ([], ["*.bin"], "a.bin", False),
        ([], ["*.bin"], "a.json", True),
        ([], ["a/"], "a/b", False),
        (["*"], ["*.bin"], "a.bin", False),  # exclude wins
        (["*.json", "*.txt"], ["a*", "b*"], "c.txt", True),
        ([""], [], "a", False),
        (["["], [], "[", True),
    ],
)
def test_filters_are_those_of_hf_download(
    include: list[str], exclude: list[str], path: str, admitted: bool
) -> None:
    one = Allowed(
        RepoId("a/b"), Pair("a/b@c").revision, 1, include=tuple(include), exclude=tuple(exclude)
    )
    assert one.admits(RepoPath(path)) is admitted


@given(st.lists(st.text(st.sampled_from("ab*?[]!/.-\\"), max_size=8), max_size=3))
def test_any_pattern_answers_yes_or_no(patterns: list[str]) -> None:
    revision = Pair("a/b@c").revision
    chosen = Allowed(RepoId("a/b"), revision, 1, include=tuple(patterns))
    barred = Allowed(RepoId("a/b"), revision, 1, exclude=tuple(patterns))
    for path in map(RepoPath, ("a", "a/b", "b.a-b/!")):
        if patterns:
            assert chosen.admits(path) is not barred.admits(path)
