"""What is served: files made up for a measurement, laid out as a Hub, with a lock that names them.

<root>/bench/<name>/resolve/<commit>/<path>     the bytes
<root>/api/models/bench/<name>/revision/main    what huggingface_hub asks, as JSON
<root>/api/models/bench/<name>/tree/<commit>
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from proxy.hub import gitoid, wire
from proxy.hub.names import CommitSha, Digest, GitOid, RepoId, RepoPath, Revision
from proxy.pins import lock
from proxy.pins.lock import Entry, Lock, Pin

COMMIT = CommitSha(hashlib.sha1(b"benchmarks", usedforsecurity=False).hexdigest())
_LFS = 1 << 20  # from here on a file is one of LFS
_PIECE = 16 << 20


@dataclass(slots=True)
class Stage:
    """A Hub's files below `root`."""

    root: Path
    pins: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def publish(self, name: str, path: str, size: int) -> Entry:
        """A file of random bytes."""
        file = self.file(name, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        hasher = hashlib.sha256()
        with file.open("wb") as out:
            for start in range(0, size, _PIECE):
                piece = os.urandom(min(_PIECE, size - start))
                hasher.update(piece)
                out.write(piece)
        return self.list(name, path, size, hasher.hexdigest())

    def list(self, name: str, path: str, size: int, sha256: str) -> Entry:
        """Lock a file that need not be there."""
        digest, lfs = Digest.of_hex(sha256), size >= _LFS
        oid = gitoid.blob_oid(gitoid.lfs_pointer(digest, size)) if lfs else GitOid(sha256[:40])
        entry = Entry(RepoId(f"bench/{name}"), COMMIT, RepoPath(path), size, digest, oid, lfs)
        self.pins.setdefault(name, {})[path] = entry
        return entry

    def file(self, name: str, path: str) -> Path:
        return self.root / "bench" / name / "resolve" / COMMIT / path

    def write_api(self) -> None:
        """The JSON that clients ask for before they ask for files."""
        for name, entries in self.pins.items():
            base = self.root / "api" / "models" / "bench" / name
            for folder in ("revision", "tree", "paths-info"):
                (base / folder).mkdir(parents=True, exist_ok=True)
            info = {
                "_id": "0" * 24, "id": f"bench/{name}", "sha": COMMIT, "private": False,
                "tags": [], "downloads": 0, "likes": 0,
                "siblings": [{"rfilename": path} for path in entries],
            }  # fmt: skip
            tree = [
                wire.file_json(e.path, e.size, e.git_oid, e.digest if e.lfs else None)
                for e in entries.values()
            ]
            for revision in ("main", COMMIT):
                (base / "revision" / revision).write_text(json.dumps(info))
                for listing in ("tree", "paths-info"):
                    (base / listing / revision).write_text(json.dumps(tree))

    def write_lock(self, folder: Path, upstream: str) -> None:
        """allowlist.yaml and allowlist.lock in `folder`."""
        names = sorted(self.pins)
        (folder / "allowlist.yaml").write_text(
            "allow:\n" + "".join(f"  - bench/{name}@main\n" for name in names)
        )
        pins = [self._pin(name, upstream) for name in names]
        made = Lock({pin.pair: pin for pin in pins})
        (folder / "allowlist.lock").write_bytes(lock.dumps(made))

    def _pin(self, name: str, upstream: str) -> Pin:
        return Pin(
            repo=RepoId(f"bench/{name}"), revision=Revision("main"), commit=COMMIT,
            date=wire.EPOCH, kind=wire.RefKind.BRANCH, upstream=upstream, license="",
            include=(), exclude=(), info={"id": f"bench/{name}"}, files=self.pins[name],
        )  # fmt: skip


def url(entry: Entry) -> str:
    """The path to ask any of the servers for."""
    return f"/{entry.repo}/resolve/{entry.commit}/{entry.path}"
