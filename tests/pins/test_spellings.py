"""No spelling of a URL yields a file of something that is not allowed, or reaches outside."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Refused
from proxy.hub import urls
from proxy.hub.urls import ApiAddress, FileAddress
from proxy.pins.catalog import Snapshot
from proxy.pins.lock import Entry
from tests.pins.examples import A, B, C, catalog_of, pin

CATALOG = catalog_of(
    """
    allow:
      - org/m@main
      - datasets/org/d@v1
      - {repo: org/two, revision: v1, include: ["*.json"]}
      - org/two@refs/pr/1
      - org/unlocked@main
    """,
    pin(commit=A),
    pin("datasets/org/d@v1", commit=B),
    pin("org/two@v1", commit=C),
    pin("org/other@main", commit="d" * 40),
    pin("org/m@v1", commit="e" * 40),
)
SERVED = {"org/m@main", "datasets/org/d@v1", "org/two@v1"}


def answer(raw: str) -> Entry | Snapshot | None:
    """What a server finds for a raw path; None if it is none of the Hub's routes."""
    address = urls.parse(raw)
    match address:
        case FileAddress(repo, _, rest):
            revision, path = CATALOG.split(repo, rest)
            return CATALOG.snapshot(repo, revision).entry("/".join(path))
        case ApiAddress(repo, "", _):
            return CATALOG.snapshot(repo, None)
        case ApiAddress(repo, _, rest):
            return CATALOG.snapshot(repo, CATALOG.split(repo, rest)[0])
    return None


@pytest.mark.parametrize(
    ("raw", "pair"),
    [
        ("/org/m/resolve/main/config.json", "org/m@main"),
        (f"/org/m/resolve/{A}/config.json", "org/m@main"),
        ("//org/m/resolve/main/config.json", "org/m@main"),
        ("/org/m/resolve/%6dain/config.json", "org/m@main"),
        ("/%6frg/m/resolve/main/config%2ejson", "org/m@main"),
        ("/datasets/org/d/raw/main/config.json", "datasets/org/d@v1"),
        ("/api/models/org/two/revision/v1", "org/two@v1"),
        (f"/api/models/org/two/tree/{C}/", "org/two@v1"),
    ],
)
def test_an_allowed_file_is_found_under_each_of_its_spellings(raw: str, pair: str) -> None:
    found = answer(raw)
    assert found is not None
    assert pair.startswith(f"{found.repo}@")


BYPASSES = [
    # another name
    "/Org/m/resolve/main/config.json",
    "/org/M/resolve/main/config.json",
    "/ORG%2fM/resolve/main/config.json",
    "/org/m.git/resolve/main/config.json",
    "/org/m%20/resolve/main/config.json",
    "/org/m%00/resolve/main/config.json",
    "/org/m./resolve/main/config.json",
    "/org%2Fm/resolve/main/config.json",
    "/org//m/resolve/main/config.json",
    "/org/m//resolve/main/config.json",
    "/./org/m/resolve/main/config.json",
    "/org/other/../m/resolve/main/config.json",
    "/org/other/resolve/main/config.json",
    "/org/unlocked/resolve/main/config.json",
    "/m/resolve/main/config.json",
    # another type
    "/models/org/m/resolve/main/config.json",
    "/datasets/org/m/resolve/main/config.json",
    "/spaces/org/m/resolve/main/config.json",
    "/org/d/resolve/v1/config.json",
    "/datasets/datasets/org/d/resolve/v1/config.json",
    "/datasets%2Forg/d/resolve/v1/config.json",
    "/Datasets/org/d/resolve/v1/config.json",
    "/api/models/org/d/revision/v1",
    "/api/datasets/org/m",
    "/api/models/datasets/org/d/revision/v1",
    # another revision
    "/org/m/resolve/Main/config.json",
    "/org/m/resolve/main%20/config.json",
    "/org/m/resolve/main%00/config.json",
    "/org/m/resolve/%256dain/config.json",
    "/org/m/resolve/refs/heads/main/config.json",
    "/org/m/resolve/refs%2Fheads%2Fmain/config.json",
    "/org/m/resolve/refs/pr/1/config.json",
    "/org/m/resolve/v1/config.json",
    f"/org/m/resolve/{A[:7]}/config.json",
    f"/org/m/resolve/{A.upper()}/config.json",
    f"/org/m/resolve/{B}/config.json",
    "/org/m/resolve/" + "e" * 40 + "/config.json",
    "/org/m/resolve/main~0/config.json",
    "/org/m/resolve/main%5E%7B%7D/config.json",
    "/org/m/resolve/main:config.json",
    "/org/m/resolve/@/config.json",
    "/org/m/resolve//config.json",
    "/org/two/resolve/main/config.json",
    "/org/two/resolve/HEAD/config.json",
    "/org/two/resolve/refs/pr/1/config.json",
    "/api/models/org/two",
    "/api/models/org/m/tree",
    "/api/models/org/m/revision/",
    # another path
    "/org/two/resolve/v1/model.bin",
    "/org/m/resolve/main/Config.json",
    "/org/m/resolve/main/config.json/",
    "/org/m/resolve/main//config.json",
    "/org/m/resolve/main/./config.json",
    "/org/m/resolve/main/x/../config.json",
    "/org/m/resolve/main/../../../../etc/passwd",
    "/org/m/resolve/main/%2e%2e/%2e%2e/etc/passwd",
    "/org/m/resolve/main/..%2f..%2fetc%2fpasswd",
    "/org/m/resolve/main/%252e%252e/etc/passwd",
    "/org/m/resolve/main/..%5c..%5cetc",
    "/org/m/resolve/main/%2Fetc%2Fpasswd",
    "/org/m/resolve/main/config.json%00.txt",
    "/org/m/resolve/main/%c0%ae%c0%ae/etc/passwd",
    "/org/m/resolve/main/%ff",
    "/org/m/resolve/main/" + "a" * 10_000,
    "/org/m/resolve/main" + "/a" * 5000,
    "/org/m/resolve/main/" + "%61" * 2000,
    "/org/m/resolve/main/",
    "/org/m/resolve/main",
]


@pytest.mark.parametrize("raw", BYPASSES)
def test_a_spelling_that_is_not_exactly_allowed_is_refused(raw: str) -> None:
    with suppress(Refused):
        assert answer(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        "/api/resolve-cache/models/org/m/main/config.json",
        "/org/m/blob/main/config.json",
        "/org/m/info/refs?service=git-upload-pack",
        "/org/m.git/info/refs",
        "http://evil.example/org/m/resolve/main/config.json",
        "/api/models/org/m/commit/main",
    ],
)
def test_a_route_of_the_hub_that_we_do_not_have_is_no_way_in(raw: str) -> None:
    assert answer(raw) is None


WORDS = [
    "org", "m", "d", "two", "other", "unlocked", "api", "models", "datasets", "spaces", "resolve",
    "raw", "tree", "revision", "paths-info", "main", "v1", "HEAD", "refs", "pr", "1", "heads",
    "config.json", "model.bin", "", ".", "..", "%2e%2e", "%2f", "..%2f", "%00", "%5c", "%ff", "%20",
    "refs%2Fpr%2F1", "datasets%2Forg", A, B, A[:7], "%6dain", "org%2Fm",
]  # fmt: skip
RAW = st.lists(st.sampled_from(WORDS), max_size=9).map(lambda words: "/" + "/".join(words))


@given(RAW | st.text(max_size=30).map("/org/m/resolve/{}".format))
def test_whatever_is_asked_only_allowed_and_locked_bytes_are_found(raw: str) -> None:
    try:
        found = answer(raw)
    except Refused:
        return
    if isinstance(found, Snapshot):
        assert found.pair in SERVED
    elif found is not None:
        held = [one for one in CATALOG.snapshots() if one.commit == found.commit]
        assert [one.pair for one in held if one.files.get(found.path) is found]
