"""The catalog: what is both allowed and locked, and what every revision of it means."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import (
    EntryNotFound,
    MirrorError,
    RepoNotAllowed,
    RevisionNotAllowed,
    RevisionNotPinned,
)
from proxy.hub import gitoid
from proxy.hub.names import Pair, RepoId, RepoType
from proxy.hub.wire import RefKind
from proxy.pins import lock
from proxy.pins.catalog import Catalog, Snapshot
from proxy.pins.lock import Entry
from proxy.tasks import blobs
from tests.pins.examples import CONTENTS, A, B, C, catalog_of, pin

M = RepoId("org/m")


def commit_of(catalog: Catalog, revision: str | None) -> str:
    return catalog.snapshot(M, revision).commit


# --- which revisions are answered ----------------------------------------------------------------


def test_an_empty_catalog_allows_nothing() -> None:
    with pytest.raises(RepoNotAllowed):
        Catalog().snapshot(M, "main")


def test_a_locked_pair_answers_under_its_revision_and_its_commit() -> None:
    catalog = catalog_of("allow: [org/m@main]", pin(commit=A))
    assert commit_of(catalog, "main") == A
    assert commit_of(catalog, A) == A
    for other in (B, A[:7], A.upper(), "refs/heads/main", "Main", "main ", "", "v1"):
        with pytest.raises(RevisionNotAllowed):
            catalog.snapshot(M, other)


def test_the_only_pair_of_a_repository_answers_for_main_and_for_no_revision() -> None:
    catalog = catalog_of("allow: [org/m@v23]", pin("org/m@v23"))
    for revision in ("v23", "main", "HEAD", None):
        assert catalog.snapshot(M, revision).pair == "org/m@v23"


def test_an_empty_serve_as_says_no_to_main() -> None:
    catalog = catalog_of(
        "allow: [{repo: org/m, revision: v23, serve_as: []}]", pin("org/m@v23", commit=A)
    )
    assert commit_of(catalog, "v23") == A
    for revision in ("main", "HEAD", None):
        with pytest.raises(RevisionNotAllowed):
            catalog.snapshot(M, revision)


def test_of_two_pairs_neither_answers_for_main_by_itself() -> None:
    catalog = catalog_of("allow: [org/m@v1, org/m@v2]", pin("org/m@v1"), pin("org/m@v2", commit=B))
    for revision in ("main", None):
        with pytest.raises(RevisionNotAllowed) as caught:
            catalog.snapshot(M, revision)
        assert caught.value.allowed == ("v1", "v2")


def test_serve_as_chooses_which_of_two_pairs_is_main() -> None:
    catalog = catalog_of(
        "allow: [org/m@v1, {repo: org/m, revision: v2, serve_as: [main, stable]}]",
        pin("org/m@v1", commit=A), pin("org/m@v2", commit=B),
    )  # fmt: skip
    assert commit_of(catalog, "v1") == A
    for revision in ("v2", "main", "stable", "HEAD", None):
        assert commit_of(catalog, revision) == B


def test_main_itself_is_the_default_when_it_is_allowed() -> None:
    catalog = catalog_of("allow: [org/m@v1, org/m@main]", pin("org/m@v1"), pin(commit=B))
    assert commit_of(catalog, None) == B


def test_a_branch_called_head_is_not_the_default() -> None:
    catalog = catalog_of("allow: [org/m@main, org/m@HEAD]", pin(), pin("org/m@HEAD", commit=B))
    assert commit_of(catalog, "HEAD") == B
    assert commit_of(catalog, None) == A


def test_at_a_commit_of_two_pairs_there_is_what_either_of_them_admits() -> None:
    """Clients ask what `main` means and then fetch by commit, whatever the list's order is."""
    small = pin("org/m@v1", {"config.json": b"{}"}, commit=A, include=("*.json",))
    for order in ("main", "v1"), ("v1", "main"):
        entries = [
            "{repo: org/m, revision: v1, include: ['*.json']}" if name == "v1" else "org/m@main"
            for name in order
        ]
        catalog = catalog_of(f"allow: [{', '.join(entries)}]", small, pin(commit=A))
        assert set(catalog.snapshot(M, A).files) == {"config.json", "model.bin"}
        assert set(catalog.snapshot(M, "main").files) == {"config.json", "model.bin"}
        assert set(catalog.snapshot(M, "v1").files) == {"config.json"}


def test_a_pair_locked_by_commit_has_its_own_files_beside_one_with_others() -> None:
    some = pin(f"org/m@{A}", {"config.json": b"{}"}, commit=A, include=("*.json",))
    listed = f"allow: [org/m@main, {{repo: org/m, revision: {A}, include: ['*.json']}}]"
    catalog = catalog_of(listed, some, pin(commit=A))
    own = catalog.own(Pair(f"org/m@{A}"))
    assert own is not None
    assert set(own.files) == {"config.json"}
    assert catalog.own(Pair("org/m@other")) is None
    assert catalog.own(Pair("org/other@main")) is None


def test_at_a_shared_commit_the_first_pair_has_the_word() -> None:
    listed = "allow: [{repo: org/m, revision: v1, include: ['*.json'], notice: Mind}, org/m@main]"
    small = pin("org/m@v1", {"config.json": b"{}"}, commit=A, include=("*.json",))
    found = catalog_of(listed, small, pin(commit=A)).snapshot(M, A)
    assert found.allowed.notice == "Mind"
    assert set(found.files) == {"config.json", "model.bin"}


def test_work_on_a_pair_locked_by_commit_is_about_its_own_files() -> None:
    some = pin(f"org/m@{A}", {"config.json": b"{}"}, commit=A, include=("*.json",))
    listed = f"allow: [org/m@main, {{repo: org/m, revision: {A}, include: ['*.json']}}]"
    catalog = catalog_of(listed, some, pin(commit=A))
    (found,) = blobs.snapshots(catalog, [Pair(f"org/m@{A}")])
    assert (found.pair, set(found.files)) == (f"org/m@{A}", {"config.json"})


def test_allowed_but_not_locked_says_so() -> None:
    catalog = catalog_of("allow: [org/m@main, org/m@v1]", pin("org/m@v1"))
    with pytest.raises(RevisionNotPinned, match="hubpin lock"):
        catalog.snapshot(M, "main")
    assert [one.pair for one in catalog.unlocked()] == ["org/m@main"]


def test_locked_but_not_allowed_is_not_served() -> None:
    catalog = catalog_of("allow: [org/m@v1]", pin("org/m@v1"), pin(commit=B), pin("gpt2@main"))
    with pytest.raises(RepoNotAllowed):
        catalog.snapshot(RepoId("gpt2"), "main")
    with pytest.raises(RevisionNotAllowed):
        catalog.snapshot(M, B)
    assert [one.pair for one in catalog.snapshots()] == ["org/m@v1"]


def test_a_dataset_is_not_the_model_of_the_same_name() -> None:
    catalog = catalog_of("allow: [datasets/org/m@main]", pin("datasets/org/m@main"))
    with pytest.raises(RepoNotAllowed):
        catalog.snapshot(M, "main")
    assert list(catalog.repos(RepoType.DATASET)) == ["datasets/org/m"]
    assert list(catalog.repos(RepoType.MODEL)) == []


# --- refs ----------------------------------------------------------------------------------------


def test_refs_are_the_locked_revisions_and_the_names_they_answer_for() -> None:
    catalog = catalog_of(
        """
        allow:
          - {repo: org/m, revision: v2, serve_as: [main]}
          - org/m@refs/pr/1
          - org/m@dev
        """,
        pin("org/m@v2", commit=A, kind=RefKind.TAG),
        pin("org/m@refs/pr/1", commit=B, kind=RefKind.PULL),
    )
    assert list(catalog.refs(M)) == [
        ("main", RefKind.BRANCH, A),
        ("refs/pr/1", RefKind.PULL, B),
        ("v2", RefKind.TAG, A),
    ]
    with pytest.raises(RepoNotAllowed):
        list(catalog.refs(RepoId("org/x")))


def test_a_pair_locked_by_commit_is_no_ref_but_its_default_is() -> None:
    catalog = catalog_of(f"allow: [org/m@{A}]", pin(f"org/m@{A}", kind=RefKind.COMMIT))
    assert list(catalog.refs(M)) == [("main", RefKind.BRANCH, A)]


# --- splitting a path ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "revision", "rest"),
    [
        (("main", "a", "b"), "main", ("a", "b")),
        (("refs/pr/1", "a"), "refs/pr/1", ("a",)),
        (("refs", "pr", "1", "a"), "refs/pr/1", ("a",)),
        (("feature", "x", "a"), "feature/x", ("a",)),
        ((A, "a"), A, ("a",)),
        (("HEAD", "a"), "HEAD", ("a",)),
        (("unknown", "a"), "unknown", ("a",)),
        (("refs", "pr", "9", "a"), "refs/pr/9", ("a",)),
        (("main",), "main", ()),
        ((), "", ()),
    ],
)
def test_a_revision_ends_where_a_known_one_ends(
    segments: tuple[str, ...], revision: str, rest: tuple[str, ...]
) -> None:
    catalog = catalog_of(
        "allow: [org/m@main, org/m@refs/pr/1, org/m@feature/x]",
        pin(), pin("org/m@refs/pr/1", commit=B), pin("org/m@feature/x", commit=C),
    )  # fmt: skip
    assert catalog.split(M, segments) == (revision, rest)


@given(st.lists(st.text(max_size=6) | st.sampled_from(["refs", "pr", "1"]), max_size=6))
@example([])
@example([""])
@example(["refs"])
def test_any_segments_are_split_without_losing_one(segments: list[str]) -> None:
    catalog = catalog_of("allow: [org/m@main, org/m@refs/pr/1]", pin())
    revision, rest = catalog.split(M, tuple(segments))
    assert "/".join([revision, *rest]) == "/".join(segments)


# --- files ---------------------------------------------------------------------------------------


def test_a_file_that_is_not_in_the_commit_is_not_found() -> None:
    snapshot = catalog_of("allow: [org/m@main]", pin()).snapshot(M, "main")
    assert snapshot.entry("config.json").size == 2
    for path in ("Config.json", "config.json/", "/config.json", "../config.json", "", "."):
        with pytest.raises(EntryNotFound):
            snapshot.entry(path)


def listing(snapshot: Snapshot, folder: str, *, recursive: bool = False) -> list[str]:
    found = snapshot.children(folder, recursive=recursive)
    return sorted(one.path if isinstance(one, Entry) else f"{one}/" for one in found)


def test_a_folder_lists_what_lies_in_it() -> None:
    files = {"a/b/c.txt": b"", "a/d.txt": b"", "a.b/e": b"", "f": b""}
    snapshot = catalog_of("allow: [org/m@main]", pin(files=files)).snapshot(M, "main")
    assert listing(snapshot, "") == ["a.b/", "a/", "f"]
    assert listing(snapshot, "a") == ["a/b/", "a/d.txt"]
    assert listing(snapshot, "a/") == ["a/b/", "a/d.txt"]
    assert listing(snapshot, "a", recursive=True) == ["a/b/", "a/b/c.txt", "a/d.txt"]
    assert listing(snapshot, "", recursive=True) == sorted([*files, "a/", "a.b/", "a/b/"])
    for folder in ("f", "x", "a/b/c.txt", "..", "a//b"):
        with pytest.raises(EntryNotFound):
            listing(snapshot, folder)


def test_a_repository_without_files_has_an_empty_top() -> None:
    snapshot = catalog_of("allow: [org/m@main]", pin(files={})).snapshot(M, "main")
    assert listing(snapshot, "") == []
    assert snapshot.folders == {"": gitoid.tree_oid([])}
    assert snapshot.size == 0


def written_tree(folder: Path, contents: dict[str, bytes]) -> str:
    """The tree that git writes for regular files of these contents."""
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    where = {**os.environ, **nobody, "GIT_DIR": str(folder / ".git")}

    def git(*arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            ["git", *arguments], check=True, capture_output=True, env=where, input=stdin
        )
        return done.stdout.decode().strip()

    if not (folder / ".git").exists():
        git("init", "--quiet", "--bare")
    git("read-tree", "--empty")
    rows = [f"100644 {gitoid.blob_oid(text)}\t{path}\0" for path, text in contents.items()]
    git("update-index", "-z", "--index-info", stdin="".join(rows).encode())
    return git("write-tree", "--missing-ok")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tree")


@settings(max_examples=15)
@given(contents=CONTENTS)
@example(contents={"a.b": b"1", "a/b": b"2", "a0": b"3", "a-b/c": b"4", "a/b.c/d": b"5"})
@example(contents={"a/a/a": b"", "a/a.a": b"", "a.a/a": b"", "é/ü": b"", "😀/\uffff": b""})
def test_a_folder_has_the_tree_id_that_git_writes(folder: Path, contents: dict[str, bytes]) -> None:
    regular = {path: text for path, text in contents.items() if ".bin" not in path}
    if any(".git" in path.lower().split("/") for path in regular):
        return  # git does not add it
    one = pin(files=regular)
    snapshot = catalog_of("allow: [org/m@main]", one).snapshot(M, "main")
    assert snapshot.folders[""] == written_tree(folder, regular)
    for path in snapshot.folders:
        below = {
            file.removeprefix(f"{path}/"): text
            for file, text in regular.items()
            if file.startswith(f"{path}/")
        }
        if path and "/" not in path:
            assert snapshot.folders[path] == written_tree(folder, below)


# --- filters -------------------------------------------------------------------------------------


def test_the_catalog_keeps_the_filters_that_the_lock_was_made_with() -> None:
    held = pin(files={"a.json": b"1"}, include=("*.json",))
    catalog = catalog_of("allow: [{repo: org/m, revision: main, include: ['*.json']}]", held)
    assert set(catalog.snapshot(M, "main").files) == {"a.json"}


def test_a_tightened_filter_holds_at_once_and_moves_no_commit() -> None:
    held = pin(files={"a.json": b"1", "d/w.bin": b"2"}, commit=A)
    before = catalog_of("allow: [org/m@main]", held).snapshot(M, "main")
    text = "allow: [{repo: org/m, revision: main, exclude: ['*.bin']}]"
    after = catalog_of(text, held).snapshot(M, "main")
    assert after.commit == before.commit == A
    assert set(after.files) == {"a.json"}
    assert set(after.folders) == {""}
    assert after.fingerprint != before.fingerprint
    assert after.fingerprint == lock.fingerprint(after.files.values())
    with pytest.raises(EntryNotFound):
        after.entry("d/w.bin")


def test_a_loosened_filter_promises_nothing_that_is_not_locked() -> None:
    held = pin(files={"a.json": b"1"}, include=("*.json",))
    snapshot = catalog_of("allow: [org/m@main]", held).snapshot(M, "main")
    assert set(snapshot.files) == {"a.json"}


def test_a_snapshot_knows_its_pin() -> None:
    snapshot = catalog_of("allow: [org/m@main]", pin(info={"id": "org/m"})).snapshot(M, "main")
    assert (snapshot.repo, snapshot.pair, snapshot.commit) == ("org/m", Pair("org/m@main"), A)
    assert snapshot.info == {"id": "org/m"}
    assert snapshot.size == len(b"{}") + len(b"weights")


@given(st.text(max_size=12) | st.none())
def test_any_revision_is_a_snapshot_that_is_allowed_or_a_refusal(revision: str | None) -> None:
    catalog = catalog_of("allow: [org/m@v1, org/m@main]", pin(), pin("gpt2@main", commit=B))
    try:
        assert catalog.snapshot(M, revision).pair in ("org/m@main", "org/m@v1")
    except MirrorError as e:
        assert isinstance(e, RevisionNotAllowed | RevisionNotPinned)
