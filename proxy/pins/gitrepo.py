"""A locked snapshot as a git repository: one commit whose tree is the locked tree.

The commit is made here, so its id is not the Hub's, which names history that we do not have. It
depends on nothing but the repository, its commit on the Hub and the files that are served: every
mirror with the same lock makes the same one.

A tree without `.gitattributes` (a filter left it out) gets one: without it git-lfs leaves pointers
where files should be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from weakref import WeakKeyDictionary

from proxy.hub import gitoid
from proxy.hub.names import GitOid
from proxy.hub.wire import RefKind
from proxy.pins.catalog import Snapshot
from proxy.pins.lock import Entry

ATTRIBUTES = ".gitattributes"
_WHO = "hubpin <hubpin@localhost>"
_SPACES = {RefKind.BRANCH: "refs/heads/", RefKind.TAG: "refs/tags/"}


@dataclass(frozen=True, slots=True)
class GitCommit:
    """Everything that git needs for one snapshot."""

    oid: GitOid
    made: Mapping[GitOid, tuple[str, bytes]]  # commit, trees, pointers: kind and bytes
    files: Mapping[GitOid, Entry]  # blobs whose bytes are those of a file


def ref_name(name: str, kind: RefKind) -> str:
    """A revision as git writes it: `main` → `refs/heads/main`; `refs/pr/1` is one already."""
    return f"{_SPACES.get(kind, '')}{name}"


class GitCommits:
    """The commits of snapshots, made once; they go when the catalog lets go of them."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Snapshot, GitCommit] = WeakKeyDictionary()

    def of(self, snapshot: Snapshot) -> GitCommit:
        commit = self._kept.get(snapshot)
        if commit is None:
            commit = self._kept[snapshot] = build(snapshot)
        return commit


def build(snapshot: Snapshot) -> GitCommit:
    made: dict[GitOid, tuple[str, bytes]] = {}
    files: dict[GitOid, Entry] = {}

    def keep(kind: str, body: bytes) -> GitOid:
        oid = gitoid.object_oid(kind, body)
        made[oid] = (kind, body)
        return oid

    blobs: dict[str, GitOid] = {}
    for path, entry in snapshot.files.items():
        if entry.lfs:
            blobs[path] = keep("blob", gitoid.lfs_pointer(entry.digest, entry.size))
        else:
            blobs[path] = entry.git_oid
            files[entry.git_oid] = entry
    large = sorted(entry.path for entry in snapshot.files.values() if entry.lfs)
    if large and ATTRIBUTES not in blobs:
        blobs[ATTRIBUTES] = keep("blob", attributes(large))
    folders: dict[str, list[tuple[str, GitOid, bool]]] = {"": []}
    for path, oid in blobs.items():
        folder, _, name = path.rpartition("/")
        parent = folder
        while parent not in folders:
            folders[parent] = []
            parent = parent.rpartition("/")[0]
        folders[folder].append((name, oid, False))
    for folder in sorted(folders, key=lambda one: -one.count("/")):
        if folder:
            parent, _, name = folder.rpartition("/")
            oid = keep("tree", gitoid.tree_body(folders[folder]))
            folders[parent].append((name, oid, True))
    root = keep("tree", gitoid.tree_body(folders[""]))
    who = f"{_WHO} {int(datetime.fromisoformat(snapshot.pin.date).timestamp())} +0000"
    text = (
        f"tree {root}\nauthor {who}\ncommitter {who}\n\n"
        f"{snapshot.repo} at {snapshot.commit[:12]}\n\n"
        f"Hub-Commit: {snapshot.commit}\nFingerprint: {snapshot.fingerprint}\n"
    )
    commit = keep("commit", text.encode())
    return GitCommit(commit, made, {oid: one for oid, one in files.items() if oid not in made})


def attributes(paths: Iterable[str]) -> bytes:
    """A `.gitattributes` that hands these files to git-lfs."""
    return "".join(
        f"{_pattern(path)} filter=lfs diff=lfs merge=lfs -text\n" for path in paths
    ).encode()


def _pattern(path: str) -> str:
    """gitattributes(5): a pattern that names one file, quoted in C style where it must be."""
    pattern = "/" + re.sub(r"([*?\[])", r"\\\1", path)
    if re.search(r'[\s"]', pattern):
        escaped = pattern.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return pattern
