"""The Hub's URL paths: decoded once, split first, and both directions agree."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import InvalidName
from proxy.hub import urls
from proxy.hub.names import RepoId, RepoPath, RepoType, Revision
from proxy.hub.urls import ApiAddress, FileAddress, ListAddress, OtherAddress

M = RepoId("org/m")
D = RepoId("datasets/org/d")

REPOS = st.sampled_from(
    ["gpt2", "org/m", "datasets/squad", "datasets/org/d", "spaces/org/app", "org/resolve", "raw/x"]
).map(RepoId)
REVISIONS = st.sampled_from(["main", "refs/pr/1", "feature/x", "v1.0", "ü", "a@b", "f" * 40]).map(
    Revision
)
SEGMENTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"),
    min_size=1,
    max_size=20,
).filter(lambda one: one not in (".", ".."))
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: RepoPath("/".join(parts)))


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        ("/gpt2/resolve/main/a", FileAddress(RepoId("gpt2"), "resolve", ("main", "a"))),
        ("/org/m/resolve/main/d/a.bin", FileAddress(M, "resolve", ("main", "d", "a.bin"))),
        ("/org/m/raw/main/a", FileAddress(M, "raw", ("main", "a"))),
        ("/datasets/org/d/resolve/main/a", FileAddress(D, "resolve", ("main", "a"))),
        ("/datasets/squad/resolve/main/a",
         FileAddress(RepoId("datasets/squad"), "resolve", ("main", "a"))),
        ("/org/m/resolve/refs%2Fpr%2F1/a", FileAddress(M, "resolve", ("refs/pr/1", "a"))),
        ("/org/m/resolve/refs/pr/1/a", FileAddress(M, "resolve", ("refs", "pr", "1", "a"))),
        ("//org/m/resolve/main/a", FileAddress(M, "resolve", ("main", "a"))),
        ("/api/models/org/m", ApiAddress(M, "", ())),
        ("//api/models/gpt2", ApiAddress(RepoId("gpt2"), "", ())),
        ("/api/datasets/org/d/revision/main", ApiAddress(D, "revision", ("main",))),
        ("/api/models/org/m/tree/main/sub%2Fdir", ApiAddress(M, "tree", ("main", "sub/dir"))),
        ("/api/models/gpt2/tree/main", ApiAddress(RepoId("gpt2"), "tree", ("main",))),
        ("/api/models/org/m/tree", ApiAddress(M, "tree", ())),
        ("/api/models/org/m/refs", ApiAddress(M, "refs", ())),
        ("/api/models/org/m/paths-info/main", ApiAddress(M, "paths-info", ("main",))),
        ("/api/models", ListAddress(RepoType.MODEL)),
        ("/api/spaces/", ListAddress(RepoType.SPACE)),
        ("/", OtherAddress(("",))),
        ("/-/healthy", OtherAddress(("-", "healthy"))),
        ("/api/whoami-v2", OtherAddress(("api", "whoami-v2"))),
        ("/api/resolve-cache/models/org/m/abc/a",
         OtherAddress(("api", "resolve-cache", "models", "org", "m", "abc", "a"))),
        ("/org/m/blob/main/a", OtherAddress(("org", "m", "blob", "main", "a"))),
        ("/org/m/resolve", OtherAddress(("org", "m", "resolve"))),
        ("/datasets", OtherAddress(("datasets",))),
    ],
)  # fmt: skip
def test_a_path_says_what_it_asks_for(raw: str, address: urls.Address) -> None:
    assert urls.parse(raw) == address


@pytest.mark.parametrize(
    ("raw", "segment"),
    [
        ("a%20b", "a b"),
        ("a%2520b", "a%20b"),  # decoded once: a file may be called "a%20b"
        ("%C3%BC", "ü"),
        ("a%23b%3Fc", "a#b?c"),
        ("a+b", "a+b"),
        ("..%2f..%2fetc", "../../etc"),  # one segment still: no folder is ever opened for it
        ("%00", "\0"),
        ("%", "%"),
        ("%zz", "%zz"),
    ],
)
def test_a_segment_is_decoded_once_after_the_split(raw: str, segment: str) -> None:
    address = urls.parse(f"/org/m/resolve/main/{raw}")
    assert address == FileAddress(M, "resolve", ("main", segment))


@pytest.mark.parametrize(
    "raw",
    [
        "/org/m/resolve/main/%c0%ae",  # an overlong dot
        "/org/m/resolve/main/%ff",
        "/org/m/resolve/main/%ed%a0%80",  # half of a surrogate pair
        "/org/m/resolve/main/\ud800",
        "/org%2Fm/resolve/main/a",
        "/org/m%2Fx/resolve/main/a",
        "/api/models/org%2Fm/revision/main",
        "/api/models/org/m.git",
        "/../m/resolve/main/a",
        "/%2e%2e/m/resolve/main/a",
        "/o//resolve/main/a",
        "/" + "a" * urls.MAX_PATH_BYTES,
    ],
)
def test_a_path_that_nobody_writes_by_accident_is_refused(raw: str) -> None:
    with pytest.raises(InvalidName):
        urls.parse(raw)


PARTS = (
    "api models datasets spaces org m gpt2 resolve raw tree refs revision paths-info main . .. "
    "%2e%2e %2f ..%2f %00 %ff %c0%ae %25 %5c"
)
RAW = st.text(max_size=60) | st.lists(st.sampled_from(["", *PARTS.split()]), max_size=9).map(
    lambda parts: "/" + "/".join(parts)
)


@given(RAW)
@example("")
@example("/" * 5000)
@example("/a" * 5000)
@example("/api/models/" + "a/" * 4000)
def test_any_path_is_an_address_or_invalid(raw: str) -> None:
    try:
        address = urls.parse(raw)
    except InvalidName:
        return
    match address:
        case FileAddress(repo, verb, rest):
            assert RepoId(repo) == repo
            assert verb in urls.FILE_VERBS
            assert rest
        case ApiAddress(repo, verb, _):
            assert RepoId(repo) == repo
            assert verb == "" or verb in urls.API_VERBS
        case ListAddress(kind):
            assert isinstance(kind, RepoType)
        case OtherAddress(segments):
            assert segments


@given(REPOS, REVISIONS, PATHS)
def test_the_address_of_a_file_reads_back(repo: RepoId, revision: Revision, path: RepoPath) -> None:
    raw = urls.resolve(repo, revision, path)
    assert raw.isascii()
    assert urls.parse(raw) == FileAddress(repo, "resolve", (revision, *path.split("/")))


@given(REPOS, st.sampled_from(sorted(urls.API_VERBS)), REVISIONS | st.just(""))
def test_the_address_of_an_answer_reads_back(repo: RepoId, verb: str, revision: str) -> None:
    assert urls.parse(urls.api(repo, verb, revision)) == ApiAddress(
        repo, verb, (revision,) if revision else ()
    )
    assert urls.parse(urls.api(repo)) == ApiAddress(repo, "", ())
