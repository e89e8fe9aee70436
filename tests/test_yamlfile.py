"""YAML is read strictly: what was written, with its line, or our own error."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import yamlfile
from proxy.errors import ConfigError
from proxy.yamlfile import MAX_BYTES, MAX_DEPTH, Fields, Node, parse_duration, parse_size


def plain(node: Node) -> object:
    """The tree as strings, lists and dictionaries."""
    if node.fields is not None:
        return {key: plain(value) for key, value in node.fields.items()}
    if node.items is not None:
        return [plain(item) for item in node.items]
    return node.text


def read(text: str) -> object:
    return plain(yamlfile.parse(text, "f.yaml"))


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        yamlfile.parse(text, "f.yaml")
    return str(caught.value)


def fields(text: str) -> Fields:
    return Fields(yamlfile.parse(text, "f.yaml"), "f.yaml", "the file")


# --- the tree ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scalar",
    ["no", "Yes", "on", "true", "null", "~", "0123456", "0o17", "0x1f", "1.10", "1e3", ".inf",
     "2024-01-01", "12:30:45", "1_000", "=", "9" * 4000],
)  # fmt: skip
def test_a_scalar_is_the_text_that_was_written(scalar: str) -> None:
    assert read(f"a: {scalar}") == {"a": scalar}
    assert read(f'a: "{scalar}"') == {"a": scalar}
    if len(scalar) < 1024:  # YAML 1.2.2 §7.4.2 limits a key on one line
        assert read(f"{scalar}: a") == {scalar: "a"}


def test_every_style_of_yaml_is_read() -> None:
    text = """\
# a comment
plain: a b
'single': 'it''s'
"double": "\\u00fc"
flow: [a, {b: c}]
block:
  - a
  - - b
folded: >-
  one
  two
literal: |
  one
  two
empty:
"""
    assert read(text) == {
        "plain": "a b", "single": "it's", "double": "ü", "flow": ["a", {"b": "c"}],
        "block": ["a", ["b"]], "folded": "one two", "literal": "one\ntwo\n", "empty": "",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "--- ''\n", "\ufeff"])
def test_an_empty_document_is_an_empty_mapping(text: str) -> None:
    assert read(text) == {}


def test_a_mark_of_byte_order_is_not_part_of_a_key() -> None:
    assert read("\ufeffa: 1") == {"a": "1"}


def test_a_node_knows_its_line() -> None:
    root = yamlfile.parse("a: 1\n\nb:\n  - x\n  - y: z\n", "f.yaml")
    assert root.fields is not None
    items = root.fields["b"].items
    assert items is not None
    assert [item.line for item in items] == [4, 5]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key 'a' (first on line 1)"),
        ("a:\n  b: 1\n  b: 2\n", 3, "duplicate key 'b'"),
        ("a: 1\n'a': 2\n", 2, "duplicate key"),
        ("a: &x 1\n", 1, "anchors"),
        ("a: &x [1]\n", 1, "anchors"),
        ("a: 1\nb: *a\n", 2, "aliases"),
        ("&a [*a]\n", 1, "anchors"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "tags (tag:yaml.org,2002:python"),
        ("a: !x 1\n", 1, "tags (!x)"),
        ("a: ! 1\n", 1, "tags (!)"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: 1\n...\n---\n", 3, "second document"),
        ("[a, b]: c\n", 1, "a key must be a plain text"),
        ("a: [1\n", 2, "not YAML"),
        ("a: 1\n b: 2\n", 2, "not YAML"),
        ("a:\n\t- 1\n", 2, "not YAML"),
        ("a: 'x\n", 2, "not YAML"),
        ("%YAML 9.9\n---\na: 1\n", 1, "not YAML"),
    ],
)
def test_what_yaml_lets_pass_is_an_error_with_its_line(text: str, line: int, said: str) -> None:
    message = refused(text)
    assert message.startswith(f"f.yaml:{line}: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["a: \0", "a: \ud800", "a: \x07"])
def test_characters_that_no_text_has_are_an_error_on_one_line(text: str) -> None:
    message = refused(text)
    assert "not YAML" in message
    assert "\n" not in message


@pytest.mark.parametrize("bomb", ["[" * 5000, "{a: " * 5000, "- " * 5000, "[{a: " * 5000])
def test_a_bomb_of_depth_is_an_error(bomb: str) -> None:
    assert f"nested deeper than {MAX_DEPTH} levels" in refused(bomb)


def test_the_deepest_document_is_read() -> None:
    yamlfile.parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f.yaml")
    refused("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_a_bomb_of_aliases_is_an_error() -> None:
    laughs = "a: &a [x, x]\n" + "".join(
        f"{key}: &{key} [*{last}, *{last}]\n"
        for last, key in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "anchors" in refused(laughs)


def test_a_mebibyte_is_read_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    line = "# " + "x" * 1021 + "\n"
    file.write_text(line * (MAX_BYTES // 1024))
    assert plain(yamlfile.read(file)) == {}
    file.write_text(line * (MAX_BYTES // 1024) + "#")
    with pytest.raises(ConfigError, match="more than 1,048,576 are not read"):
        yamlfile.read(file)
    assert "more than 1,048,576 bytes" in refused("é" * (MAX_BYTES // 2 + 1))


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    with file.open("wb") as f:
        f.truncate(100 << 20)
    tracemalloc.start()
    with pytest.raises(ConfigError):
        yamlfile.read(file)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        yamlfile.read(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        yamlfile.read(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xfc")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 3"):
        yamlfile.read(tmp_path / "latin.yaml")


YAML = st.lists(
    st.sampled_from(["a", "b: ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", ": ", "? ", "&x ",
                     "*x", "!t ", "---", "...", "|", ">", "'", '"', "#", "\t", "%", "\\", "é",
                     "\0", "\ud800", "\u2028", "<<"]),
    max_size=16,
).map("".join)  # fmt: skip


@given(YAML | st.text(max_size=40))
@example("9" * 5000)
def test_any_text_is_a_tree_or_our_own_error(text: str) -> None:
    try:
        plain(yamlfile.parse(text, "f.yaml"))
    except ConfigError as e:
        assert str(e).startswith("f.yaml")
        str(e).encode()


TREES = st.recursive(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Co")), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc1.-: ", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), TREES, max_size=4))
def test_what_another_tool_writes_is_read_back(tree: dict[str, object]) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True, default_style='"')
    text = text.replace('!!null "null"', '""')
    if "&id" not in text:  # it writes equal lists as aliases
        assert read(text) == tree


# --- fields --------------------------------------------------------------------------------------


def test_fields_are_read_by_kind() -> None:
    some = fields("t: a\nl: [b, c]\nf: true\nc: new\nn: 7\ns: 1.5GiB\nd: 5m\n")
    assert some.text("t", "") == "a"
    assert some.texts("l") == ("b", "c")
    assert some.flag("f", default=False)
    assert some.choice("c", "off", ("new", "off")) == "new"
    assert some.number("n", 0) == 7
    assert some.size("s", 0) == 3 << 29
    assert some.duration("d", 0) == 300
    some.done()


def test_a_key_that_is_not_there_has_its_default() -> None:
    none = fields("")
    assert none.text("t", "x") == "x"
    assert none.texts("l") is None
    assert none.flag("f", default=True)
    assert none.choice("c", "off", ("new", "off")) == "off"
    assert none.number("n", 3) == 3
    assert none.size("s", 4) == 4
    assert none.duration("d", 0.5) == 0.5
    none.done()


@pytest.mark.parametrize(
    ("text", "verb", "said"),
    [
        ("\nk: [a]", lambda one: one.text("k", ""), "k: must be a text, not a list"),
        ("\nk: a", lambda one: one.texts("k"), "k: must be a list, not a text"),
        ("\nk: [[a]]", lambda one: one.texts("k"), "k: an item must be a text"),
        ("\nk: yes", lambda one: one.flag("k", default=True), "true or false, not 'yes'"),
        ("\nk: True", lambda one: one.flag("k", default=True), "true or false, not 'True'"),
        ("\nk: on", lambda one: one.choice("k", "a", ("a", "b")), "one of a, b, not 'on'"),
        ("\nk: 1.0", lambda one: one.number("k", 1), "whole number"),
        ("\nk: -1", lambda one: one.number("k", 1), "whole number"),
        ("\nk: ²", lambda one: one.number("k", 1), "whole number"),
        ("\nk: 0", lambda one: one.number("k", 1, least=1), "at least 1"),
        ("\nk: " + "9" * 5000, lambda one: one.number("k", 1), "whole number"),
        ("\nk: 10 GiBs", lambda one: one.size("k", 1), "k: '10 GiBs' is not a size"),
        ("\nk: [10GiB]", lambda one: one.size("k", 1), "is not a size"),
        ("\nk: 5 min", lambda one: one.duration("k", 1), "k: '5 min' is not a duration"),
        ("\nk: {a: b}", lambda one: one.duration("k", 1), "is not a duration"),
        ("a: b\nk: c", lambda one: (one.text("a", ""), one.done()), "has no key 'k'; it knows: a"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key_and_line(text: str, verb: object, said: str) -> None:
    assert callable(verb)
    with pytest.raises(ConfigError) as caught:
        verb(fields(text))
    assert str(caught.value).startswith("f.yaml:2: ")
    assert said in str(caught.value)


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("1048576", 1 << 20), ("512MiB", 512 << 20), ("10GiB", 10 << 30),
        ("10 GiB", 10 << 30), ("1.5 GB", 1_500_000_000), ("1k", 1000), ("1Ki", 1024),
        ("2TiB", 2 << 40), ("7B", 7), (" 1MB ", 1_000_000), ("10gib", 10 << 30),
    ],
)  # fmt: skip
def test_a_size_is_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("30", 30), ("5m", 300), ("12h", 43200), ("30d", 2_592_000),
     ("0.25s", 0.25), ("5 m", 300)],
)  # fmt: skip
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "GiB", "-1", "+1", "1e3", "0x10", "1,5GB", "1..5", "10PB", "10 GiBs", "5 min", "1w",
     "٣", "1\u212a", "nan", "inf", "9" * 31, "1 2", "5S"],
)  # fmt: skip
def test_what_has_no_known_unit_is_neither(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{1,8} ?[a-zA-Z\u212a]{0,3}", fullmatch=True))
def test_any_text_is_an_amount_or_an_error_of_value(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except ValueError as e:
            assert "is not a" in str(e)
