"""A snapshot as a git commit: the locked tree, the same objects every time."""

from __future__ import annotations

from hypothesis import given

from proxy.hub import gitoid
from proxy.hub.wire import RefKind
from proxy.pins import gitrepo
from tests.pins.examples import CONTENTS, catalog_of, pin


def build(files: dict[str, bytes], commit: str = "a" * 40) -> tuple[gitrepo.GitCommit, str]:
    snapshot = catalog_of("allow: [org/m@main]", pin(files=files, commit=commit)).snapshot(
        pin().repo, "main"
    )
    return gitrepo.build(snapshot), snapshot.folders[""]


@given(CONTENTS)
def test_the_tree_is_the_locked_tree(files: dict[str, bytes]) -> None:
    files = {**files, ".gitattributes": b"*.bin filter=lfs\n"}
    commit, tree = build(files)
    assert commit.made[commit.oid][1].startswith(f"tree {tree}\n".encode())
    for oid, (kind, body) in commit.made.items():
        assert gitoid.object_oid(kind, body) == oid
    pointers = [body for kind, body in commit.made.values() if kind == "blob"]
    assert all(body.startswith(b"version https://git-lfs") for body in pointers)


def test_the_same_files_make_the_same_commit_and_others_another() -> None:
    files = {"a.json": b"{}", "sub/w.bin": b"weights"}
    first, again = build(files)[0], build(dict(reversed(files.items())))[0]
    assert first.oid == again.oid
    assert build({**files, "b": b""})[0].oid != first.oid
    assert build(files, commit="b" * 40)[0].oid != first.oid


def test_large_files_are_named_to_git_lfs_if_nothing_else_does() -> None:
    commit, _ = build({'we ird[1]"*?.bin': b"w", "config.json": b"{}"})
    want = b'"/we ird\\\\[1]\\"\\\\*\\\\?.bin" filter=lfs diff=lfs merge=lfs -text\n'
    assert want in [body for _, body in commit.made.values()]
    plain, _ = build({"config.json": b"{}"})
    assert not [kind for kind, _ in plain.made.values() if kind == "blob"]


def test_a_repository_without_files_is_a_commit_with_an_empty_tree() -> None:
    commit, _ = build({})
    assert "4b825dc642cb6eb9a060e54bf8d69288fbee4904" in commit.made


def test_revisions_are_refs_as_git_writes_them() -> None:
    assert gitrepo.ref_name("feature/x", RefKind.BRANCH) == "refs/heads/feature/x"
    assert gitrepo.ref_name("v1.0", RefKind.TAG) == "refs/tags/v1.0"
    assert gitrepo.ref_name("refs/pr/1", RefKind.PULL) == "refs/pr/1"
