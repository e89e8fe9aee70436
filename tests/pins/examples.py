"""Small locks and allowlists to test with, and strategies that make any."""

from __future__ import annotations

import hashlib
import string

from hypothesis import strategies as st

from proxy.errors import InvalidName
from proxy.hub import gitoid
from proxy.hub.names import CommitSha, Digest, Pair, RepoPath
from proxy.hub.wire import Json, RefKind
from proxy.pins import allowlist, catalog, lock
from proxy.pins.catalog import Catalog
from proxy.pins.lock import Entry, Lock, Pin

A, B, C = (CommitSha(letter * 40) for letter in "abc")


def entry(path: str, content: bytes = b"", *, pair: Pair | None = None, commit: str = A) -> Entry:
    """A file of that content; LFS if it is a .bin."""
    digest = Digest.of_hex(hashlib.sha256(content).hexdigest())
    lfs = path.endswith(".bin")
    stored = gitoid.lfs_pointer(digest, len(content)) if lfs else content
    return Entry(
        repo=(pair or Pair("org/m@main")).repo,
        commit=CommitSha(commit),
        path=RepoPath(path),
        size=len(content),
        digest=digest,
        git_oid=gitoid.blob_oid(stored),
        lfs=lfs,
    )


def pin(
    pair: str = "org/m@main",
    files: dict[str, bytes] | None = None,
    *,
    commit: str = A,
    kind: RefKind = RefKind.BRANCH,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    info: Json | None = None,
) -> Pin:
    of = Pair(pair)
    contents = {"config.json": b"{}", "model.bin": b"weights"} if files is None else files
    entries = [entry(path, text, pair=of, commit=commit) for path, text in contents.items()]
    return Pin(
        repo=of.repo,
        revision=of.revision,
        commit=CommitSha(commit),
        date="2024-01-01T00:00:00.000Z",
        kind=kind,
        upstream="https://hub.example",
        license="mit",
        include=include,
        exclude=exclude,
        info=info or {"id": of.repo.name},
        files={one.path: one for one in entries},
    )


def lock_of(*pins: Pin) -> Lock:
    return Lock({one.pair: one for one in pins})


def catalog_of(text: str, *pins: Pin) -> Catalog:
    """The catalog of an allowlist in YAML and of some pins, read back from their own bytes."""
    return catalog.build(allowlist.loads(text), lock.loads(lock.dumps(lock_of(*pins))))


def _is_path(text: str) -> bool:
    try:
        RepoPath(text)
    except InvalidName:
        return False
    return True


# Names whose order differs between bytes, UTF-16 and git trees, and others.
ODD = ["a", "a.b", "a-b", "a0", "A", "é", "日", "\uffff", "😀", '"', " "]
SEGMENTS = st.sampled_from(ODD) | st.text(min_size=1, max_size=5)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join).filter(_is_path)


def _is_tree(contents: dict[str, bytes]) -> bool:
    """Whether no file is also a folder."""
    return not any(other.startswith(f"{path}/") for path in contents for other in contents)


CONTENTS = st.dictionaries(PATHS, st.binary(max_size=4), max_size=6).filter(_is_tree)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PAIRS = st.builds(
    "{}@{}".format,
    st.sampled_from(["org/m", "gpt2", "datasets/org/d", "spaces/a/b"]),
    st.sampled_from(["main", "v1.0", "refs/pr/1", "no"])
    | st.text(string.ascii_letters, min_size=1),
)
PINS = st.builds(
    pin,
    PAIRS,
    CONTENTS,
    commit=st.sampled_from([A, B, C]),
    kind=st.sampled_from(RefKind),
    include=st.lists(TEXTS, max_size=2).map(tuple),
    exclude=st.lists(TEXTS, max_size=2).map(tuple),
    info=st.dictionaries(TEXTS, JSON, max_size=3),
)
LOCKS = st.lists(PINS, max_size=4).map(lambda pins: lock_of(*pins))
