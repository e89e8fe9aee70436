"""The JSON shapes that the Hub and its clients exchange, read and written.

    info   {"id", "sha", "private", "gated", "tags": […], "siblings": [{"rfilename"}, …], …}
    tree   [{"type": "file", "path": …, "size": …, "oid": …, "lfs": {"oid", "size", "pointerSize"}},
            {"type": "directory", "path": …, "oid": …, "size": 0}]
    refs   {"branches": [{"name", "ref", "targetCommit"}, …], "tags": […],
            "converts": […], "pullRequests": […]}

Xet fields are dropped on the way in: a client that sees one goes around the mirror
(huggingface_hub, utils/_xet.py).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from proxy.hub import gitoid
from proxy.hub.names import CommitSha, Digest, GitOid, RepoId, RepoPath

Json = dict[str, object]
EPOCH = "1970-01-01T00:00:00.000Z"
_MAX_DEPTH = 50  # of JSON that an upstream sends; a card needs five


class RefKind(enum.Enum):
    """What a revision is; the value is its list in the Hub's `/refs`."""

    BRANCH = "branches"
    TAG = "tags"
    CONVERT = "converts"
    PULL = "pullRequests"
    COMMIT = "commit"  # not in /refs


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """A repository at one commit, as an upstream describes it."""

    commit: CommitSha
    kind: RefKind
    raw: Json  # the Hub's object, without siblings and Xet fields
    restricted: str  # "gated" or "private" if our token opens what is not public, else ""

    @property
    def date(self) -> str:
        """When the commit was made, as the Hub writes dates."""
        return hub_date(self.raw.get("lastModified"))

    @property
    def license(self) -> str:
        """The licence that the model card names, or ""."""
        card = self.raw.get("cardData")
        named = card.get("license") if isinstance(card, Mapping) else None
        if isinstance(named, list):
            named = ", ".join(str(one) for one in named)
        if isinstance(named, str) and named:
            return named
        tags = self.raw.get("tags")
        for tag in tags if isinstance(tags, list) else []:
            if isinstance(tag, str) and tag.startswith("license:"):
                return tag.removeprefix("license:")
        return ""


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file of one commit, as an upstream lists it: believed only after its bytes agree."""

    repo: RepoId
    commit: CommitSha
    path: RepoPath
    size: int
    git_oid: GitOid  # of what git stores: the pointer for LFS
    lfs: Digest | None  # of the content, published for LFS files only


def parse_info(raw: object, kind: RefKind) -> RepoInfo:
    """Raises: ValueError, InvalidName."""
    if not isinstance(raw, dict):
        raise ValueError("the repository info is not a JSON object")
    sha = raw.get("sha")
    if not isinstance(sha, str):
        raise ValueError("the repository info names no commit (sha)")
    kept = {key: strip_xet(value) for key, value in raw.items() if key != "siblings"}
    return RepoInfo(
        commit=CommitSha(sha),
        kind=kind,
        raw={key: value for key, value in kept.items() if not _is_xet(key)},
        restricted=("private" if raw.get("private") else "gated" if raw.get("gated") else ""),
    )


def parse_tree_entry(raw: object, repo: RepoId, commit: CommitSha) -> TreeEntry | None:
    """A file; None for a folder. Raises: ValueError, InvalidName."""
    if not isinstance(raw, dict):
        raise ValueError("a tree entry is not a JSON object")
    if raw.get("type") != "file":
        return None
    path, size, oid, lfs = raw.get("path"), raw.get("size"), raw.get("oid"), raw.get("lfs")
    if not isinstance(path, str) or not isinstance(oid, str):
        raise ValueError("a tree entry has no path or no oid")
    digest = None
    if lfs is not None:
        if not isinstance(lfs, dict) or not isinstance(lfs.get("oid"), str):
            raise ValueError(f"the lfs object of {path!a} has no oid")
        digest = Digest.of_hex(str(lfs["oid"]).removeprefix("sha256:"))
        size = lfs.get("size", size)
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"{path!a} has no valid size")
    return TreeEntry(repo, commit, RepoPath(path), size, GitOid(oid), digest)


def strip_xet(value: object, depth: int = _MAX_DEPTH) -> object:
    """The same JSON without any Xet field. Raises: ValueError, if it is nested too deep."""
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise ValueError("the JSON is nested too deep")
    if isinstance(value, dict):
        return {key: strip_xet(item, depth - 1) for key, item in value.items() if not _is_xet(key)}
    return [strip_xet(item, depth - 1) for item in value]


def _is_xet(key: object) -> bool:
    return isinstance(key, str) and key.lower().startswith(("xet", "_xet"))


def hub_date(date: object) -> str:
    """A date in the one form that every client reads: `2024-01-01T00:00:00.000Z`.

    huggingface_hub 0.20 rejects a date without milliseconds, all reject `+00:00`
    (utils/_datetime.py, parse_datetime). What is no date becomes the epoch.
    """
    if not isinstance(date, str):
        return EPOCH
    try:
        moment = datetime.fromisoformat(date)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # overflow: the year 1, seen from further west
        return EPOCH
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def file_json(path: str, size: int, git_oid: GitOid, lfs: Digest | None) -> Json:
    """A file in `/tree` and `/paths-info`."""
    shape: Json = {"type": "file", "oid": git_oid, "size": size, "path": path}
    if lfs is not None:
        shape["lfs"] = lfs_json(lfs, size)
    return shape


def lfs_json(digest: Digest, size: int) -> Json:
    """All three keys are required once `lfs` exists (huggingface_hub, hf_api.py, RepoFile)."""
    pointer = gitoid.lfs_pointer(digest, size)
    return {"oid": digest.hex, "size": size, "pointerSize": len(pointer)}


def folder_json(path: str, oid: GitOid) -> Json:
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def ref_json(name: str, kind: RefKind, commit: CommitSha) -> Json:
    """One item of a list in `/refs` (huggingface_hub, hf_api.py, GitRefInfo)."""
    spaces = {RefKind.BRANCH: "refs/heads/", RefKind.TAG: "refs/tags/"}
    return {"name": name, "ref": f"{spaces.get(kind, '')}{name}", "targetCommit": commit}


def guess_ref_kind(revision: str) -> RefKind:
    """What a revision must be, judged by its name alone; a plain name counts as a branch."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return RefKind.COMMIT
    if revision.startswith("refs/pr/"):
        return RefKind.PULL
    if revision.startswith("refs/convert/"):
        return RefKind.CONVERT
    return RefKind.BRANCH
