"""Git object ids are the ones that git itself computes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.hub import gitoid
from proxy.hub.gitoid import BlobHasher
from proxy.hub.names import Digest, GitOid

EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """What git says, with nobody's configuration."""
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, input=stdin, check=True, capture_output=True,
        env={**os.environ, **nobody},
    )  # fmt: skip
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    git(folder, "init", "--quiet")
    return folder


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\0\xff\r\n" * 999])
def test_a_blob_has_the_id_that_git_gives_it(repository: Path, content: bytes) -> None:
    assert gitoid.blob_oid(content) == git(repository, "hash-object", "--stdin", stdin=content)


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_a_blob_in_pieces_has_the_same_id(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    hasher = BlobHasher(len(whole))
    for piece in pieces:
        hasher.update(piece)
    assert hasher.oid() == gitoid.blob_oid(whole)


def test_nothing_has_an_id_too() -> None:
    assert gitoid.blob_oid(b"") == EMPTY_BLOB
    assert gitoid.tree_oid([]) == EMPTY_TREE


def test_an_lfs_pointer_is_the_text_of_its_specification() -> None:
    # git-lfs, docs/spec.md, "The Pointer"
    digest = Digest.of_hex("4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393")
    assert gitoid.lfs_pointer(digest, 12345).decode() == (
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
        "size 12345\n"
    )


NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), min_size=1, max_size=6
).filter(lambda name: name not in (".", "..", ".git"))
ODD = st.sampled_from(["a", "a.b", "a-b", "a0", "ab", "A", "é", "e\u0301", "日", "😀", "\uffff"])


@settings(max_examples=25)
@given(st.dictionaries(ODD | NAMES, st.booleans(), max_size=8))
def test_a_tree_has_the_id_that_git_gives_it(repository: Path, names: dict[str, bool]) -> None:
    children = [
        (name, GitOid(EMPTY_TREE if folder else EMPTY_BLOB), folder)
        for name, folder in names.items()
    ]
    rows = b"".join(
        f"{'040000 tree' if folder else '100644 blob'} {oid}\t{name}\0".encode()
        for name, oid, folder in children
    )
    made = git(repository, "mktree", "-z", "--missing", stdin=rows)
    assert gitoid.tree_oid(children) == made
    assert gitoid.tree_oid(reversed(children)) == made


def test_git_sorts_a_folder_as_if_its_name_ended_in_a_slash() -> None:
    blob, tree = GitOid(EMPTY_BLOB), GitOid(EMPTY_TREE)
    # "a.b" < "a/" < "a0": the folder stands between.
    assert gitoid.tree_oid([("a", tree, True), ("a.b", blob, False)]) != gitoid.tree_oid(
        [("a", blob, False), ("a.b", blob, False)]
    )
