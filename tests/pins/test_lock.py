"""allowlist.lock: written one way, read strictly, and no field of a newer tool is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import ConfigError
from proxy.hub.names import Pair
from proxy.pins import lock
from proxy.pins.lock import Lock, Pin
from tests.pins.examples import CONTENTS, JSON, LOCKS, TEXTS, A, B, entry, lock_of, pin

Edit = Callable[[dict[str, Any]], object]
PAIR = "org/m@main"


def edited(edit: Edit) -> bytes:
    """A good lock's bytes after an edit of its JSON."""
    raw = json.loads(lock.dumps(lock_of(pin())))
    edit(raw)
    return json.dumps(raw).encode()


# --- writing -------------------------------------------------------------------------------------


def test_a_lock_is_written_with_one_file_a_line() -> None:
    one = pin(files={"b/c.bin": b"x", "é": b"", "a": b""}, info={"z": 1, "a": {"k": "日"}})
    lines = lock.dumps(lock_of(one)).decode().splitlines()
    assert lines[:3] == ["{", ' "pins": {', '  "org/m@main": {']
    assert [line.split('"')[1] for line in lines if "sha256" in line and "git_oid" in line] == [
        "a", "b/c.bin", "é",
    ]  # fmt: skip
    assert '   "info": {"a": {"k": "日"}, "z": 1},' in lines
    assert lines[-2:] == [' "version": 1', "}"]


@given(LOCKS)
def test_a_lock_reads_back_as_it_was_written(some: Lock) -> None:
    text = lock.dumps(some)
    assert lock.loads(text) == some
    assert lock.dumps(lock.loads(text)) == text


@given(st.lists(st.sampled_from(["gpt2@main", "org/m@v1", "org/m@main"]), unique=True), CONTENTS)
def test_the_same_state_gives_the_same_bytes_in_any_order(
    pairs: list[str], contents: dict[str, bytes]
) -> None:
    backwards = dict(reversed(contents.items()))
    there = lock_of(*(pin(one, contents) for one in pairs))
    back = lock_of(*(pin(one, backwards) for one in reversed(pairs)))
    assert lock.dumps(there) == lock.dumps(back)


def test_paths_are_sorted_by_their_bytes() -> None:
    # UTF-16 would put the emoji (a surrogate pair) before U+FFFF.
    one = pin(files={"😀": b"", "\uffff": b"", "a/b": b"", "a.b": b"", "a0": b"", "B": b""})
    paths = list(lock.loads(lock.dumps(lock_of(one))).pins[Pair(PAIR)].files)
    assert paths == ["B", "a.b", "a/b", "a0", "\uffff", "😀"]


# --- fields that we do not know ------------------------------------------------------------------


def test_fields_of_a_newer_tool_are_kept_everywhere() -> None:
    def add(raw: dict[str, Any]) -> None:
        raw["signed_by"] = ["me"]
        raw["zz"] = None
        raw["pins"][PAIR]["scan"] = {"ok": True}
        raw["pins"][PAIR]["files"]["model.bin"]["chunks"] = ["x", {"y": 1.5}]

    text = edited(add)
    written = lock.dumps(lock.loads(text))
    assert json.loads(written) == json.loads(text)
    assert lock.dumps(lock.loads(written)) == written


@given(
    st.dictionaries(TEXTS.map("x{}".format), JSON, max_size=3),
    st.sampled_from(["top", "pin", "file"]),
)
def test_any_unknown_field_survives(fields: dict[str, Any], where: str) -> None:
    def add(raw: dict[str, Any]) -> None:
        one = raw["pins"][PAIR]
        {"top": raw, "pin": one, "file": one["files"]["model.bin"]}[where].update(fields)

    text = edited(add)
    assert json.loads(lock.dumps(lock.loads(text))) == json.loads(text)


def test_an_unknown_field_survives_when_other_pins_change() -> None:
    def add(raw: dict[str, Any]) -> None:
        raw["new"] = 1
        raw["pins"][PAIR]["new"] = 2

    held = lock.loads(edited(add)).with_pins([pin("gpt2@main")])
    raw = json.loads(lock.dumps(held))
    assert (raw["new"], raw["pins"][PAIR]["new"]) == (1, 2)
    assert "new" not in raw["pins"]["gpt2@main"]


def test_an_entry_with_unknown_fields_can_still_be_put_in_a_set() -> None:
    assert len({msgspec.structs.replace(entry("a"), extra={"x": []}), entry("b")}) == 2


# --- reading -------------------------------------------------------------------------------------


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert lock.load(tmp_path / "allowlist.lock") == Lock()


def test_a_file_that_cannot_be_read_is_an_error_and_not_an_empty_lock(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        lock.load(tmp_path)


@given(st.binary(max_size=60) | JSON.map(lambda raw: json.dumps(raw).encode()))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b'{"version": 1, "pins": ' + b'{"a":' * 900 + b"1" + b"}" * 901)
@example(b"9" * 5000)
@example(b'{"version": 1, "pins": {"org/m@main": null}}')
@example(b'{"version": 1, "pins": {"org/m@main": []}}')
@example(b'<<<<<<< HEAD\n{"version": 1}')
def test_any_bytes_are_a_lock_or_our_own_error(content: bytes) -> None:
    try:
        assert isinstance(lock.loads(content), Lock)
    except ConfigError as e:
        assert str(e).startswith("allowlist.lock")


PLACES = st.sampled_from(
    [
        (), ("version",), ("pins",), ("pins", PAIR),
        *(("pins", PAIR, key) for key in
          ("commit", "date", "exclude", "files", "fingerprint", "include", "info", "kind",
           "license", "upstream")),
        ("pins", PAIR, "files", "model.bin"),
        *(("pins", PAIR, "files", "model.bin", key) for key in
          ("git_oid", "lfs", "sha256", "size")),
    ]
)  # fmt: skip
ANY = JSON | st.floats(allow_nan=False, allow_infinity=False)


@given(PLACES, ANY, st.booleans())
def test_a_damaged_lock_is_a_lock_or_our_own_error(
    place: tuple[str, ...], value: object, drop: bool
) -> None:
    def damage(raw: dict[str, Any]) -> None:
        *folders, last = place
        for key in folders:
            raw = raw[key]
        if drop:
            del raw[last]
        else:
            raw[last] = value

    text = edited(damage) if place else json.dumps(value).encode()
    try:
        held = lock.loads(text)
    except ConfigError:
        return
    assert lock.loads(lock.dumps(held)) == held


@settings(max_examples=60)
@given(st.data())
def test_a_lock_with_one_wrong_byte_is_a_lock_or_our_own_error(data: st.DataObject) -> None:
    text = bytearray(lock.dumps(lock_of(pin())))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    try:
        lock.loads(bytes(text))
    except ConfigError as e:
        str(e).encode()


def pin_key(key: str, value: object) -> Edit:
    return lambda raw: raw["pins"][PAIR].__setitem__(key, value)


def file_key(key: str, value: object) -> Edit:
    return lambda raw: raw["pins"][PAIR]["files"]["model.bin"].__setitem__(key, value)


def renamed(name: str) -> Edit:
    def rename(raw: dict[str, Any]) -> None:
        files = raw["pins"][PAIR]["files"]
        files[name] = files.pop("model.bin")

    return rename


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda raw: raw.__setitem__("version", 2), "version 2; this hubpin reads 1"),
        (lambda raw: raw.pop("pins"), "it has no pins"),
        (lambda raw: raw["pins"].__setitem__("org/m", {}), "pin 'org/m'"),
        (pin_key("commit", "main"), "40 lower-case hex"),
        (pin_key("kind", "twigs"), "twigs"),
        (pin_key("kind", []), "kind|valid"),
        (pin_key("files", []), "must be objects"),
        (pin_key("include", "*.json"), "is not a list"),
        (pin_key("exclude", [1]), "is not a text"),
        (pin_key("fingerprint", "sha256:" + "0" * 64), "do not add up"),
        (lambda raw: raw["pins"][PAIR].pop("license"), "no field 'license'"),
        (file_key("size", -1), "file 'model.bin'.*size -1"),
        (file_key("size", True), "file 'model.bin'.*size True"),
        (file_key("size", 1.5), "file 'model.bin'.*size 1.5"),
        (file_key("lfs", 1), "file 'model.bin'.*lfs 1"),
        (file_key("sha256", "0" * 64), "do not add up"),
        (file_key("sha256", "sha256:" + "0" * 64), "file 'model.bin'.*digest"),
        (file_key("git_oid", "x"), "file 'model.bin'.*object id"),
        (lambda raw: raw["pins"][PAIR]["files"]["model.bin"].pop("size"), "no field 'size'"),
        (lambda raw: raw["pins"][PAIR]["files"].__setitem__("model.bin", []), "not an object"),
        (lambda raw: raw["pins"][PAIR]["files"].pop("model.bin"), "do not add up"),
        (renamed("../../etc/passwd"), "file '../../etc/passwd'"),
        (renamed("a\\b"), "backslashes"),
        (renamed(""), "file ''"),
    ],
)  # fmt: skip
def test_a_lock_that_says_nonsense_is_refused_with_the_place(edit: Edit, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lock.loads(edited(edit))


def test_a_pair_that_names_a_commit_can_only_be_locked_to_it() -> None:
    assert lock.loads(lock.dumps(lock_of(pin(f"org/m@{A}", commit=A)))).pins
    with pytest.raises(ConfigError, match="another commit"):
        lock.loads(lock.dumps(lock_of(pin(f"org/m@{A}", commit=B))))


# --- fingerprints --------------------------------------------------------------------------------


@settings(max_examples=20)
@given(CONTENTS)
def test_the_fingerprint_is_what_coreutils_says(contents: dict[str, bytes]) -> None:
    files = pin(files=contents).files.values()
    text = lock.sums(files)
    said = subprocess.run(
        ["sha256sum"], input=text.encode(), check=True, capture_output=True
    ).stdout
    assert said.split()[0].decode() == lock.fingerprint(files).hex


def test_sha256sum_accepts_the_sums_of_the_real_files(tmp_path: Path) -> None:
    contents = {"a/b c/é.txt": b"1", "-x": b"2", "😀.bin": b"3", "*": b"4", " a ": b""}
    for path, content in contents.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "SHA256SUMS").write_text(lock.sums(pin(files=contents).files.values()))
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_a_fingerprint_depends_on_paths_and_bytes_and_nothing_else() -> None:
    def of(one: Pin) -> str:
        return lock.fingerprint(one.files.values())

    first = of(pin(files={"a": b"1", "b": b"2"}))
    assert of(pin("gpt2@v1", {"b": b"2", "a": b"1"}, commit=B)) == first
    assert of(pin(files={"a": b"2", "b": b"1"})) != first
    assert of(pin(files={"a": b"1"})) != first


# --- changing and comparing ----------------------------------------------------------------------


def test_pins_are_added_replaced_and_dropped_on_a_new_lock() -> None:
    old = lock_of(pin("org/m@main"), pin("org/m@v1"))
    new = old.with_pins([pin("org/m@main", commit=B)], dropped=[Pair("org/m@v1"), Pair("a/b@c")])
    assert {pair: one.commit for pair, one in new.pins.items()} == {PAIR: B}
    assert len(old.pins) == 2


def test_a_lock_knows_every_blob_that_it_needs_once() -> None:
    held = lock_of(pin("a/b@c", {"x": b"1", "y": b"1"}), pin("gpt2@main", {"z": b"1", "w": b"2"}))
    assert held.digests() == {entry("x", b"1").digest, entry("x", b"2").digest}


def test_an_etag_is_the_one_the_hub_gives() -> None:
    assert entry("a.bin", b"x").etag == entry("a.bin", b"x").digest.hex
    assert entry("a.txt", b"x").etag == entry("a.txt", b"x").git_oid


def test_a_difference_names_files_and_the_bytes_to_move() -> None:
    old = pin(files={"same": b"1", "gone": b"22", "old name": b"333", "edited": b"4"}).files
    new = pin(files={"same": b"1", "new name": b"333", "edited": b"55555", "copy": b"55555"}).files
    delta = lock.diff(old, new)
    assert [one.path for one in delta.added] == ["copy", "new name"]
    assert [one.path for one in delta.removed] == ["gone", "old name"]
    assert [(a.path, a.size, b.size) for a, b in delta.changed] == [("edited", 1, 5)]
    assert delta.bytes_to_move == 5  # one blob under two names; a rename moves nothing


@given(CONTENTS, CONTENTS)
def test_a_difference_turns_one_side_into_the_other(
    before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    old, new = pin(files=before).files, pin(files=after).files
    delta = lock.diff(old, new)
    made = {str(path): one for path, one in old.items() if one not in delta.removed}
    made |= {str(one.path): one for one in delta.added}
    made |= {str(one.path): one for _, one in delta.changed}
    assert made == new
    same = lock.diff(old, old)
    assert (same.added, same.removed, same.changed, same.bytes_to_move) == ((), (), (), 0)
