"""What a Hub holds: repositories with history, as plain values that both fakes serve.

A commit's id is the one that git would compute for the same tree, parent, author and date, so the
same steps give the same ids on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.hub import gitoid, wire
from proxy.hub.names import CommitSha, Digest, GitOid, RepoId
from proxy.hub.wire import Json, RefKind
from tests.fakes.content import Blob, as_blob, digest

_FIRST_COMMIT = 1_704_067_200  # Unix seconds: 2024-01-01T00:00:00Z
_AUTHOR = "Acme <acme@example.invalid>"


@dataclass(frozen=True, slots=True)
class File:
    """A file of some commit, and how git keeps it."""

    content: Blob
    lfs: bool

    @property
    def size(self) -> int:
        return self.content.size

    @property
    def digest(self) -> Digest:
        return digest(self.content)

    @property
    def git_oid(self) -> GitOid:
        """Of what git stores: the pointer for LFS."""
        return gitoid.blob_oid(self.pointer) if self.lfs else self.content.git_oid()

    @property
    def pointer(self) -> bytes:
        return gitoid.lfs_pointer(self.digest, self.size)

    @property
    def etag(self) -> str:
        return self.content.sha256() if self.lfs else self.git_oid

    @property
    def xet_hash(self) -> str:
        """What the Hub would name the file in its chunk store; nobody can compute it here."""
        return hashlib.sha256(b"xet" + self.content.sha256().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Commit:
    """All files of a repository at one moment."""

    sha: CommitSha
    parent: CommitSha | None
    title: str
    date: str
    files: Mapping[str, File]
    folders: Mapping[str, GitOid]  # by path; the root is ""


def regular(content: Blob | bytes | str) -> File:
    return File(as_blob(content), lfs=False)


def lfs(content: Blob | bytes | str) -> File:
    return File(as_blob(content), lfs=True)


@dataclass(slots=True)
class Repo:
    """A repository with its history; branches and tags can be moved."""

    id: RepoId
    branches: dict[str, CommitSha] = field(default_factory=dict)
    tags: dict[str, CommitSha] = field(default_factory=dict)
    pulls: dict[str, CommitSha] = field(default_factory=dict)  # refs/pr/N
    converts: dict[str, CommitSha] = field(default_factory=dict)  # refs/convert/parquet
    commits: dict[CommitSha, Commit] = field(default_factory=dict)
    private: bool = False
    gated: str = ""  # "auto" or "manual"; "" is open
    extra: Json = field(default_factory=dict)  # laid over the info object

    def commit(
        self,
        files: Mapping[str, File | None],
        *,
        branch: str = "main",
        parent: str = "",
        title: str = "",
    ) -> CommitSha:
        """A commit that adds, replaces or (None) removes files, and its branch moved to it.

        It continues `parent` (any revision), else the branch, else nothing.
        """
        before = self.find(parent or branch)
        if parent and before is None:
            raise KeyError(f"{self.id} has no {parent}")
        held = dict(before.files) if before else {}
        for path, file in files.items():
            held.pop(path, None)
            if file is not None:
                held[path] = file
        moment = _FIRST_COMMIT + 3600 * len(self.commits)
        made = _commit(held, before, title or f"Commit {len(self.commits) + 1}", moment)
        self.commits[made.sha] = made
        self.move(branch, made.sha)
        return made.sha

    def move(self, ref: str, to: str) -> CommitSha:
        """Point a ref at a revision: a tag of that name if there is one, else a branch."""
        target = self.find(to)
        if target is None:
            raise KeyError(f"{self.id} has no {to}")
        if ref.startswith("refs/pr/"):
            self.pulls[ref] = target.sha
        elif ref.startswith("refs/convert/"):
            self.converts[ref] = target.sha
        elif ref in self.tags:
            self.tags[ref] = target.sha
        else:
            self.branches[ref] = target.sha
        return target.sha

    def tag(self, name: str, at: str = "main") -> CommitSha:
        target = self.find(at)
        if target is None:
            raise KeyError(f"{self.id} has no {at}")
        self.tags[name] = target.sha
        return target.sha

    def find(self, revision: str) -> Commit | None:
        """The commit that a revision means; a short id of seven digits or more counts."""
        if revision == "HEAD":
            revision = "main"
        for refs in (self.branches, self.tags, self.pulls, self.converts):
            if revision in refs:
                return self.commits[refs[revision]]
        if len(revision) >= 7:
            found = [c for sha, c in self.commits.items() if sha.startswith(revision)]
            if len(found) == 1:
                return found[0]
        return None

    def at(self, revision: str = "main") -> Commit:
        """Like `find`, for a revision that has to exist."""
        found = self.find(revision)
        if found is None:
            raise KeyError(f"{self.id} has no {revision}")
        return found

    def kind(self, revision: str) -> RefKind:
        if revision in self.branches or revision == "HEAD":
            return RefKind.BRANCH
        if revision in self.tags:
            return RefKind.TAG
        if revision in self.pulls:
            return RefKind.PULL
        return RefKind.CONVERT if revision in self.converts else RefKind.COMMIT

    def history(self, revision: str) -> Iterator[Commit]:
        """The newest commit first."""
        at = self.find(revision)
        while at is not None:
            yield at
            at = self.commits[at.parent] if at.parent else None


class World:
    """Every repository of a Hub, and who has moved where."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}  # old name → new name

    def repo(self, name: str) -> Repo:
        """The repository of that name, made on first mention."""
        if name not in self.repos:
            self.repos[name] = Repo(RepoId(name))
        return self.repos[name]

    def delete(self, name: str) -> None:
        del self.repos[name]

    def rename(self, old: str, new: str) -> None:
        moved = self.repos.pop(old)
        moved.id = RepoId(new)
        self.repos[new] = moved
        self.renamed[old] = new


# --- the Hub's JSON about it ---------------------------------------------------------------------


def info_json(repo: Repo, commit: Commit, *, blobs: bool = False) -> Json:
    """What `/api/{type}/{repo}/revision/{rev}` answers, Xet fields included."""
    raw: Json = {
        "_id": hashlib.sha256(repo.id.encode()).hexdigest()[:24],
        "id": repo.id.name,
        "author": repo.id.name.partition("/")[0],
        "sha": commit.sha,
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 17,
        "likes": 3,
        "tags": [],
        "createdAt": "2024-01-01T00:00:00.000Z",
        "lastModified": commit.date,
        "usedStorage": sum(file.size for file in commit.files.values()),
        "xetEnabled": True,
        **repo.extra,
        "siblings": [
            _sibling_json(path, file, blobs) for path, file in sorted(commit.files.items())
        ],
    }
    if not repo.id.type.prefix:
        raw["modelId"] = repo.id.name
    return raw


def _sibling_json(path: str, file: File, blobs: bool) -> Json:
    raw: Json = {"rfilename": path}
    if blobs:
        raw |= {"size": file.size, "blobId": file.git_oid}
        if file.lfs:
            raw["lfs"] = {
                "sha256": file.digest.hex,
                "size": file.size,
                "pointerSize": len(file.pointer),
            }
            raw["xetHash"] = file.xet_hash
    return raw


def entry_json(path: str, file: File) -> Json:
    """A file in `/tree`, with `xetHash` as the Hub sends it."""
    raw = wire.file_json(path, file.size, file.git_oid, file.digest if file.lfs else None)
    return {**raw, "xetHash": file.xet_hash} if file.lfs else raw


def tree_json(commit: Commit, folder: str = "", *, recursive: bool = True) -> list[Json] | None:
    """The entries below a folder, sorted as the Hub sorts them; None if there is no such folder."""
    if folder not in commit.folders:
        return None
    prefix = f"{folder}/" if folder else ""
    rows: dict[str, Json] = {}
    for path, oid in commit.folders.items():
        if path and path.startswith(prefix) and path != folder:
            rows[path] = wire.folder_json(path, oid)
    for path, file in commit.files.items():
        if path.startswith(prefix):
            rows[path] = entry_json(path, file)
    if not recursive:
        rows = {path: row for path, row in rows.items() if "/" not in path[len(prefix) :]}
    return [rows[path] for path in sorted(rows)]


def _commit(files: dict[str, File], before: Commit | None, title: str, moment: int) -> Commit:
    folders = _folders(files)
    who = f"{_AUTHOR} {moment} +0000"
    lines = [f"tree {folders['']}"]
    if before:
        lines.append(f"parent {before.sha}")
    body = "\n".join([*lines, f"author {who}", f"committer {who}", "", title, ""]).encode()
    sha = hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest()
    date = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return Commit(CommitSha(sha), before.sha if before else None, title, date, files, folders)


def _folders(files: Mapping[str, File]) -> dict[str, GitOid]:
    """The git tree id of every folder, the root as ""."""
    children: dict[str, list[tuple[str, GitOid, bool]]] = {"": []}
    for path, file in files.items():
        folder, _, name = path.rpartition("/")
        parent = folder
        while parent not in children:
            children[parent] = []
            parent = parent.rpartition("/")[0]
        children[folder].append((name, file.git_oid, False))
    made: dict[str, GitOid] = {}
    for folder in sorted(children, key=lambda path: -path.count("/") if path else 1):
        made[folder] = gitoid.tree_oid(children[folder])
        if folder:
            parent, _, name = folder.rpartition("/")
            children[parent].append((name, made[folder], True))
    return dict(sorted(made.items()))
