"""The Hub's JSON: whatever it says, we have our own shape of it or our own error."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import InvalidName
from proxy.hub import wire
from proxy.hub.names import CommitSha, Digest, GitOid, RepoId
from proxy.hub.wire import RefKind

SHA = "a" * 40
REPO, COMMIT = RepoId("org/m"), CommitSha(SHA)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def file(**changes: object) -> dict[str, object]:
    return {"type": "file", "path": "a.bin", "size": 5, "oid": SHA, **changes}


# --- repository info -----------------------------------------------------------------------------


def test_info_keeps_what_the_hub_said_but_siblings_and_xet() -> None:
    raw = {
        "id": "org/m", "sha": SHA, "tags": ["x"], "siblings": [{"rfilename": "a"}],
        "xetEnabled": True, "XetHash": "y", "cardData": {"xet": 1, "license": "mit"},
        "list": [{"_xetHash": 1, "kept": 2}],
    }  # fmt: skip
    info = wire.parse_info(raw, RefKind.TAG)
    assert (info.commit, info.kind) == (SHA, RefKind.TAG)
    assert info.raw == {
        "id": "org/m", "sha": SHA, "tags": ["x"], "cardData": {"license": "mit"},
        "list": [{"kept": 2}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "restricted"),
    [
        ({}, ""),
        ({"private": False, "gated": False}, ""),
        ({"gated": "auto"}, "gated"),
        ({"gated": "manual"}, "gated"),
        ({"private": True, "gated": "auto"}, "private"),
    ],
)
def test_info_says_whether_the_repository_is_open_to_all(
    flags: dict[str, object], restricted: str
) -> None:
    assert wire.parse_info({"sha": SHA, **flags}, RefKind.BRANCH).restricted == restricted


@pytest.mark.parametrize(
    ("raw", "license_"),
    [
        ({"cardData": {"license": "mit"}, "tags": ["license:other"]}, "mit"),
        ({"cardData": {"license": ["mit", "apache-2.0"]}}, "mit, apache-2.0"),
        ({"cardData": {"license": ""}, "tags": ["en", "license:gpl-3.0"]}, "gpl-3.0"),
        ({"cardData": None, "tags": [1, None]}, ""),
        ({"cardData": "x", "tags": "license:mit"}, ""),
        ({}, ""),
    ],
)
def test_the_licence_is_the_one_the_card_names(raw: dict[str, object], license_: str) -> None:
    assert wire.parse_info({"sha": SHA, **raw}, RefKind.BRANCH).license == license_


@given(JSON | st.dictionaries(st.sampled_from(["sha", "private", "cardData", "tags"]), JSON))
@example({"sha": SHA, "deep": "x"})
def test_any_json_is_info_or_an_error_of_value(raw: object) -> None:
    try:
        info = wire.parse_info(raw, RefKind.BRANCH)
    except (ValueError, InvalidName):
        return
    assert isinstance(info.license, str)
    assert isinstance(info.date, str)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [100, 900, 50_000])
def test_json_without_a_floor_is_an_error_and_no_crash(depth: int) -> None:
    with pytest.raises(ValueError, match="too deep"):
        wire.parse_info({"sha": SHA, "cardData": nested(depth)}, RefKind.BRANCH)


def test_a_deep_card_is_no_problem() -> None:
    assert wire.strip_xet(nested(20)) == nested(20)


# --- tree entries --------------------------------------------------------------------------------


def test_a_regular_file_has_the_size_and_oid_that_git_has() -> None:
    entry = wire.parse_tree_entry(file(), REPO, COMMIT)
    assert entry is not None
    assert (entry.path, entry.size, entry.git_oid, entry.lfs) == ("a.bin", 5, SHA, None)


def test_an_lfs_file_has_the_size_of_its_content() -> None:
    lfs = {"oid": "b" * 64, "size": 1 << 40, "pointerSize": 135}
    entry = wire.parse_tree_entry(file(size=135, lfs=lfs, xetHash="x"), REPO, COMMIT)
    assert entry is not None
    assert (entry.size, entry.lfs) == (1 << 40, Digest.of_hex("b" * 64))


def test_an_lfs_oid_may_carry_its_algorithm() -> None:
    entry = wire.parse_tree_entry(file(lfs={"oid": "sha256:" + "b" * 64}), REPO, COMMIT)
    assert entry is not None
    assert entry.lfs == Digest.of_hex("b" * 64)


def test_a_folder_is_no_file() -> None:
    assert wire.parse_tree_entry({"type": "directory", "path": "d"}, REPO, COMMIT) is None


@pytest.mark.parametrize(
    "raw",
    [
        None, [], "a", file(path=None), file(oid=7), file(size=None), file(size=-1),
        file(size=True), file(size="5"), file(size=1.5), file(lfs=[]), file(lfs={}),
        file(lfs={"oid": "b" * 63}), file(lfs={"oid": "b" * 64, "size": "1"}), file(oid="x" * 40),
        file(path="../x"), file(path="a\0b"), file(path="a\\b"), file(path="x" * 256),
        file(path="/etc/passwd"), file(path=""),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused(raw: object) -> None:
    with pytest.raises((ValueError, InvalidName)):
        wire.parse_tree_entry(raw, REPO, COMMIT)


@given(st.dictionaries(st.sampled_from(["type", "path", "size", "oid", "lfs"]), JSON), JSON)
def test_any_json_is_an_entry_or_an_error_of_value(changes: dict[str, Any], raw: object) -> None:
    for one in (raw, file(**changes)):
        try:
            entry = wire.parse_tree_entry(one, REPO, COMMIT)
        except (ValueError, InvalidName):
            continue
        assert entry is None or entry.size >= 0


# --- what we say ---------------------------------------------------------------------------------


def test_a_file_says_to_clients_what_it_said_to_us() -> None:
    oid, digest = GitOid(SHA), Digest.of_hex("b" * 64)
    shape = wire.file_json("a.bin", 1234, oid, digest)
    assert shape == {
        "type": "file", "path": "a.bin", "size": 1234, "oid": SHA,
        "lfs": {"oid": "b" * 64, "size": 1234, "pointerSize": 129},
    }  # fmt: skip
    entry = wire.parse_tree_entry(shape, REPO, COMMIT)
    assert entry is not None
    assert (entry.size, entry.git_oid, entry.lfs) == (1234, oid, digest)
    assert "lfs" not in wire.file_json("a", 1, oid, None)
    assert wire.parse_tree_entry(wire.folder_json("d", oid), REPO, COMMIT) is None


def test_a_ref_is_where_git_keeps_it() -> None:
    assert wire.ref_json("main", RefKind.BRANCH, COMMIT)["ref"] == "refs/heads/main"
    assert wire.ref_json("v1", RefKind.TAG, COMMIT)["ref"] == "refs/tags/v1"
    assert wire.ref_json("refs/pr/1", RefKind.PULL, COMMIT)["ref"] == "refs/pr/1"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (SHA, RefKind.COMMIT),
        ("refs/pr/7", RefKind.PULL),
        ("refs/convert/parquet", RefKind.CONVERT),
        ("main", RefKind.BRANCH),
        ("v1.0", RefKind.BRANCH),
    ],
)
def test_a_name_alone_tells_most_kinds_of_revision(name: str, kind: RefKind) -> None:
    assert wire.guess_ref_kind(name) is kind


# --- dates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("date", "written"),
    [
        ("2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00.000Z"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.000Z"),
        ("2024-01-01T02:00:00+02:00", "2024-01-01T00:00:00.000Z"),
        ("2024-01-01T00:00:00.123456Z", "2024-01-01T00:00:00.123Z"),
        ("2024-01-01", "2024-01-01T00:00:00.000Z"),
        ("0010-01-01", "0010-01-01T00:00:00.000Z"),
        ("0001-01-01T00:00:00+12:00", wire.EPOCH),
        ("9999-12-31T23:00:00-12:00", wire.EPOCH),
        ("2024-13-99T99:99:99.999Z", wire.EPOCH),
        ("٢٠٢٤-01-01T00:00:00.000Z", wire.EPOCH),
        ("yesterday", wire.EPOCH),
        ("", wire.EPOCH),
        (None, wire.EPOCH),
        (7, wire.EPOCH),
    ],
)
def test_a_date_is_written_the_one_way_every_client_reads(date: object, written: str) -> None:
    assert wire.hub_date(date) == written


@given(JSON | st.datetimes().map(datetime.isoformat) | st.from_regex(r"\d{4}-\d\d-\d\dT.{0,14}"))
def test_any_value_is_written_as_a_date(date: object) -> None:
    written = wire.hub_date(date)
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z", written)
    assert wire.hub_date(written) == written
