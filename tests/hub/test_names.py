"""Names are valid by construction: what is not one raises InvalidName and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import InvalidName
from proxy.hub.names import (
    CommitSha,
    Digest,
    GitOid,
    Pair,
    RepoId,
    RepoPath,
    RepoType,
    Revision,
)

KINDS: list[Callable[[str], str]] = [CommitSha, GitOid, Digest, RepoId, Revision, RepoPath, Pair]
# Text that is nearly a name, which plain random text never is.
NEARLY = st.text(
    st.one_of(st.sampled_from("aA0_-./@:~^\\{}*?[ \t\n\0\x7f\x85%é\ud800"), st.characters()),
    max_size=40,
)


@pytest.mark.parametrize("kind", KINDS)
@given(text=NEARLY | st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
@example(text="")
@example(text="a" * 5000)
@example(text="\ud800")
def test_any_text_is_a_name_or_invalid(kind: Callable[[str], str], text: str) -> None:
    try:
        name = kind(text)
    except InvalidName as e:
        str(e).encode()  # what we say about it can always be printed
        assert len(str(e)) < 1000
    else:
        assert name == text
        assert kind(name) == name


# --- repositories --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("gpt2", RepoType.MODEL, "gpt2"),
        ("sentence-transformers/all-MiniLM-L6-v2", RepoType.MODEL, None),
        ("datasets/squad", RepoType.DATASET, "squad"),
        ("datasets/rajpurkar/squad", RepoType.DATASET, "rajpurkar/squad"),
        ("spaces/org/app", RepoType.SPACE, "org/app"),
        ("_a/b_", RepoType.MODEL, "_a/b_"),
        ("a/b.c", RepoType.MODEL, "a/b.c"),
        ("org/datasets", RepoType.MODEL, "org/datasets"),
        ("a/" + "b" * 96, RepoType.MODEL, None),
    ],
)
def test_a_repository_knows_its_type_and_name(text: str, kind: RepoType, name: str | None) -> None:
    repo = RepoId(text)
    assert repo.type is kind
    assert repo.name == (name or text)
    assert RepoId.of(repo.type, repo.name) == repo


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "a/", "/a", "a//b", "a/b/c", "a/b/", ".", "..", "../a", "a/..", "a/.b", "a/b.",
        "-a/b", "a/-b", "a/b-", "a--b/c", "a/b--c", "a/b..c", "a/b.git", "a b/c", "a/b\n", "a/b\0",
        "a\\b", "a/b@c", "a:b", "é/b", "a/b%2f", "a/" + "b" * 97, "datasets/", "datasets/a/b/c",
        "models/a", "api/models", "api", "datasets", "spaces", "kernels/x",
    ],
)  # fmt: skip
def test_what_the_hub_would_not_call_a_repository_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        RepoId(text)
    assert caught.value.kind == "repository"


def test_another_case_is_another_repository() -> None:
    assert RepoId("Org/Model") != RepoId("org/model")


# --- revisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["main", "v1.0", "1.10", "no", "0123456", "feature/x", "refs/pr/7", "refs/convert/parquet",
     "ü", "a@b", "a" * 255, "HEAD", "f" * 40],
)  # fmt: skip
def test_what_git_allows_is_a_revision(text: str) -> None:
    assert Revision(text) == text


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a..b", "..", ".a", "a/.b", "a.lock", "a.lock/b", "a~1", "a^", "a:b", "a?",
     "a*", "a[", "a\\b", "a//b", "/a", "a/", "a.", "-a", "@", "a@{1}", "a\0", "a\n", "a\x7f",
     "a\x9b", "\ud800", "a" * 256, "é" * 128],
)  # fmt: skip
def test_what_git_forbids_is_no_revision(text: str) -> None:
    with pytest.raises(InvalidName):
        Revision(text)


@settings(max_examples=60)
@given(st.text(st.sampled_from("ab@{}./-~lock:é"), min_size=1, max_size=8))
def test_git_agrees_that_a_revision_can_be_a_ref(text: str) -> None:
    try:
        name = Revision(text)
    except InvalidName:
        return
    command = ["git", "check-ref-format", "--allow-onelevel", name]
    assert subprocess.run(command, check=False).returncode == 0


def test_only_forty_lower_case_hex_digits_are_a_commit() -> None:
    assert Revision("a" * 40).commit == CommitSha("a" * 40)
    for text in ("main", "a" * 39, "a" * 41, "A" * 40, "refs/pr/1"):
        assert Revision(text).commit is None


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["a", ".gitattributes", "a/.b", "...", "a b/c#d?e%20f+g.txt", "ü/日本.bin", "-a", "a\u2028b",
     "x" * 255, "/".join(["x" * 100] * 40), "CON", "a:b", "<script>", "~"],
)  # fmt: skip
def test_a_path_may_have_any_ordinary_segments(text: str) -> None:
    assert RepoPath(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "a/..", "../a", "a/../b", "a\\b",
     "..\\a", "a\0", "a\nb", "a\x1b[31m", "a\x7f", "a\x85b", "\udcff", "x" * 256, "é" * 128,
     "a/" + "x" * 256, "/".join(["x" * 100] * 41)],
)  # fmt: skip
def test_a_path_that_could_lead_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        RepoPath(text)
    assert caught.value.kind == "path"


@given(NEARLY)
@example(".a/b")
@example("a/..b")
def test_a_path_never_holds_a_segment_with_a_meaning(text: str) -> None:
    try:
        path = RepoPath(text)
    except InvalidName:
        return
    assert not {"", ".", ".."} & set(path.split("/"))
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c == "\\" for c in path)


# --- digests, commits, pairs ---------------------------------------------------------------------


def test_a_digest_is_written_one_way() -> None:
    digest = Digest.of_hex("a" * 64)
    assert digest == "sha256:" + "a" * 64
    assert digest.hex == "a" * 64
    for text in ("a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha1:" + "a" * 40):
        with pytest.raises(InvalidName):
            Digest(text)
    with pytest.raises(InvalidName):
        Digest.of_hex("sha256:" + "a" * 64)
    with pytest.raises(InvalidName):
        CommitSha("a" * 40 + "\n")


@pytest.mark.parametrize("repo", ["gpt2", "org/m", "datasets/org/d", "spaces/a/b"])
@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "v1@2", "a" * 40])
def test_a_pair_is_its_repository_and_its_revision(repo: str, revision: str) -> None:
    pair = Pair.of(RepoId(repo), Revision(revision))
    assert pair == f"{repo}@{revision}"
    assert (pair.repo, pair.revision) == (repo, revision)


@pytest.mark.parametrize("text", ["a/b", "@main", "a/b@", "a b@main", "a/b@ma in", "a/b@main "])
def test_half_a_pair_is_no_pair(text: str) -> None:
    with pytest.raises(InvalidName):
        Pair(text)


def test_a_long_name_is_cut_in_the_message_and_kept_in_the_facts() -> None:
    with pytest.raises(InvalidName) as caught:
        RepoId("x/" * 500)
    assert len(str(caught.value)) < 400
    assert caught.value.text == "x/" * 500


def test_a_terminal_cannot_be_driven_by_a_message() -> None:
    with pytest.raises(InvalidName) as caught:
        RepoPath("a\x1b]0;owned\x07\u202eb")
    assert str(caught.value).isprintable()
