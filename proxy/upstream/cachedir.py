"""An existing Hugging Face cache directory, on this machine or on a USB disk.

    {models|datasets|spaces}--{org}--{name}/
      refs/{revision}                  a commit, as text
      snapshots/{commit}/{path}        a link to ../../blobs/{etag}; a plain file on some disks
      blobs/{etag}                     64 hex digits: LFS, its sha256. 40: git's id of the content
      info.json, info/{commit}.json    the Hub's info object, if somebody put it there (our format)

huggingface_hub, file_download.py, hf_hub_download, draws the first three. Nothing that leaves the
directory is read, nor anything that is not a plain file.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from proxy.errors import InvalidName, UpstreamMissing, UpstreamUnavailable
from proxy.hub import gitoid, wire
from proxy.hub.names import CommitSha, Digest, GitOid, RepoId, RepoPath, Revision
from proxy.hub.wire import Json, RefKind, RepoInfo, TreeEntry
from proxy.upstream import card
from proxy.upstream.base import Located

log = logging.getLogger(__name__)

_PIECE = 1 << 20
_MAX_INFO = 64 << 20  # bytes of an info.json
_LFS_SIZE = 10 << 20  # bytes; git on the Hub refuses larger files without LFS
# .gitattributes of a fresh Hub repository. Asked only where no blob name tells.
_LFS_SUFFIXES = frozenset(
    (
        *(".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".gguf", ".gz", ".h5", ".joblib"),
        *(".mlmodel", ".model", ".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb"),
        *(".pickle", ".pkl", ".pt", ".pth", ".rar", ".safetensors", ".tar", ".tflite", ".tgz"),
        *(".wasm", ".xz", ".zip", ".zst"),
    )
)


class CacheDirUpstream:
    """What some machine once downloaded. Deterministic: asked twice, it says the same."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        return f"file://{self._root}"

    @property
    def connections(self) -> int:
        return 1  # one disk

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        return await asyncio.to_thread(self._info, repo, revision)

    async def tree(self, repo: RepoId, commit: CommitSha) -> AsyncGenerator[TreeEntry]:
        for path, file in await asyncio.to_thread(self._walk, repo, commit):
            yield await asyncio.to_thread(self._entry, repo, commit, path, file)

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[bytes]:
        left = min(stop, file.size) - start
        snapshot = self._snapshot(file.repo, file.commit)
        try:
            with self._opened(snapshot / file.path) as opened:
                opened.seek(start)
                while left > 0:
                    piece = await asyncio.to_thread(opened.read, min(_PIECE, left))
                    if not piece:
                        return
                    left -= len(piece)
                    yield piece
        except (FileNotFoundError, NotADirectoryError) as e:
            raise UpstreamMissing(
                self.name, f"no {file.path!a} of {file.repo}@{file.commit[:12]}"
            ) from e
        except OSError as e:
            raise UpstreamUnavailable(self.name, f"cannot read {file.path!a}: {e}") from e

    def source(self, file: Located) -> str:
        return self.name

    def blame(self, file: Located) -> None:
        """A directory has nobody else to prefer."""

    async def close(self) -> None:
        """There is nothing to close."""

    # --- finding -----------------------------------------------------------------------------

    def _repo_dir(self, repo: RepoId) -> Path:
        """Raises: UpstreamUnavailable without the cache itself, UpstreamMissing."""
        if not self._root.is_dir():
            raise UpstreamUnavailable(
                self.name, f"there is no directory {self._root}; is the disk plugged in?"
            )
        found = self._root / "--".join((repo.type.value, *repo.name.split("/")))
        if not found.is_dir() or not self._inside(found):
            raise UpstreamMissing(self.name, f"it does not hold {repo}")
        return found

    def _snapshot(self, repo: RepoId, commit: CommitSha) -> Path:
        found = self._repo_dir(repo) / "snapshots" / commit
        if not found.is_dir() or not self._inside(found):
            raise UpstreamMissing(self.name, f"it holds {repo}, but not its commit {commit}")
        return found

    def _inside(self, path: Path) -> bool:
        return _is_inside(self._root, path)

    def _opened(self, path: Path) -> AbstractContextManager[BinaryIO]:
        """Raises: OSError, also for what is not a plain file of the cache directory."""
        return opened_inside(self._root, path)

    def _commit(self, repo: RepoId, revision: Revision) -> tuple[CommitSha, RefKind]:
        folder = self._repo_dir(repo)
        kind = wire.guess_ref_kind(revision)
        if revision.commit is not None:
            commit = revision.commit
        else:
            commit, kind = self._ref(folder, revision) or self._short(folder, repo, revision)
        self._snapshot(repo, commit)
        return commit, kind

    def _ref(self, folder: Path, revision: Revision) -> tuple[CommitSha, RefKind] | None:
        try:
            with self._opened(folder / "refs" / revision) as opened:
                text = opened.read(100).decode("ascii", "replace").strip()
            return CommitSha(text), wire.guess_ref_kind(revision)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except (OSError, InvalidName) as e:
            raise UpstreamUnavailable(self.name, f"refs/{revision} cannot be used: {e}") from e

    def _short(self, folder: Path, repo: RepoId, revision: Revision) -> tuple[CommitSha, RefKind]:
        """A shortened commit that only one snapshot matches."""
        snapshots = folder / "snapshots"
        names = sorted(os.listdir(snapshots)) if snapshots.is_dir() else []  # names
        matching = [one for one in names if one.startswith(revision)]
        if len(revision) < 7 or len(matching) != 1:
            raise UpstreamMissing(self.name, f"it holds {repo}, but not {revision} of it")
        try:
            return CommitSha(matching[0]), RefKind.COMMIT
        except InvalidName as e:
            raise UpstreamMissing(self.name, f"{matching[0]!a} is not a commit") from e

    # --- describing --------------------------------------------------------------------------

    def _walk(self, repo: RepoId, commit: CommitSha) -> list[tuple[RepoPath, Path]]:
        """Every file of a snapshot, sorted, so that everybody sees the same."""
        found: list[tuple[RepoPath, Path]] = []
        waiting = [(self._snapshot(repo, commit), "")]
        try:
            while waiting:
                folder, prefix = waiting.pop()
                for item in folder.iterdir():
                    path = RepoPath(prefix + item.name)
                    if item.is_dir() and not item.is_symlink():
                        waiting.append((item, f"{path}/"))
                    else:
                        found.append((path, item))
        except (OSError, InvalidName) as e:
            raise UpstreamUnavailable(self.name, f"the snapshot of {repo}@{commit}: {e}") from e
        return sorted(found)

    def _entry(self, repo: RepoId, commit: CommitSha, path: RepoPath, file: Path) -> TreeEntry:
        try:
            with self._opened(file) as opened:
                size = os.fstat(opened.fileno()).st_size
                etag = file.resolve().name if file.is_symlink() else ""
                oid, digest = _ids(opened, path, size, etag)
        except OSError as e:
            raise UpstreamUnavailable(self.name, f"{path!a} of {repo}@{commit}: {e}") from e
        return TreeEntry(repo, commit, path, size, oid, digest)

    def _info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        commit, kind = self._commit(repo, revision)
        files = self._walk(repo, commit)
        folder = self._repo_dir(repo)
        raw = {**self._described(repo, files), **self._given(folder, commit)}
        raw |= {"id": str(repo.name), "sha": str(commit)}
        try:
            return wire.parse_info(raw, kind)
        except (ValueError, RecursionError) as e:
            raise UpstreamUnavailable(self.name, f"the info of {repo}: {e}") from e

    def _described(self, repo: RepoId, files: list[tuple[RepoPath, Path]]) -> Json:
        """The info object as far as the files tell."""
        front: Json = {}
        newest = 0.0
        for path, file in files:
            try:
                with self._opened(file) as opened:
                    newest = max(newest, os.fstat(opened.fileno()).st_mtime)
                    if path == "README.md":
                        front = card.parse(opened.read(card.MAX_SIZE))
            except OSError as e:
                log.warning("%s: %s of %s: %s", self.name, path, repo, e)
        moment = datetime.fromtimestamp(int(newest), UTC).isoformat()
        raw: Json = {
            "_id": hashlib.sha256(repo.encode()).hexdigest()[:24],
            "author": repo.name.partition("/")[0] if "/" in repo.name else None,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "lastModified": wire.hub_date(moment),
            "tags": card.tags(front),
            "cardData": front,
        }
        keys = ("pipeline_tag", "library_name", "sdk")
        return raw | {key: front[key] for key in keys if isinstance(front.get(key), str)}

    def _given(self, folder: Path, commit: CommitSha) -> Json:
        """An info object that somebody put beside the snapshots, because it says more."""
        for file in (folder / "info" / f"{commit}.json", folder / "info.json"):
            try:
                with self._opened(file) as opened:
                    given: object = msgspec.json.decode(opened.read(_MAX_INFO))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as e:
                log.warning("%s is ignored: %s", file, e)
                continue
            if isinstance(given, dict):
                return {str(key): value for key, value in given.items()}
        return {}


def _is_inside(root: Path, path: Path) -> bool:
    """Whether a path ends up below `root`, all links followed."""
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        return False


@contextmanager
def opened_inside(root: Path, path: Path) -> Iterator[BinaryIO]:
    """A plain file below `root`. Raises: OSError, also for what is none, links followed."""
    try:
        real = path.resolve(strict=True)
    except RuntimeError as e:
        raise OSError(f"{path} is a loop of links") from e
    if not _is_inside(root, real):
        raise PermissionError(f"{path} leads out of the directory {root}")
    # O_NONBLOCK: a FIFO that takes the file's place must not make us wait for its writer.
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:  # noqa: PTH123  # from a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PermissionError(f"{path} is not a plain file")
        yield opened


def _ids(opened: BinaryIO, path: RepoPath, size: int, etag: str) -> tuple[GitOid, Digest | None]:
    """What git calls a file, and its digest if it is LFS: from the blob's name, else computed."""
    digits = set(etag) <= set("0123456789abcdef")
    if digits and len(etag) == 64:
        digest = Digest.of_hex(etag)
        return gitoid.blob_oid(gitoid.lfs_pointer(digest, size)), digest
    if digits and len(etag) == 40:
        return GitOid(etag), None
    lfs = size > _LFS_SIZE or Path(path).suffix.lower() in _LFS_SUFFIXES
    sha256, git = hashlib.sha256(), gitoid.BlobHasher(size)
    while piece := opened.read(_PIECE):
        sha256.update(piece)
        git.update(piece)
    if not lfs:
        return git.oid(), None
    digest = Digest.of_hex(sha256.hexdigest())
    return gitoid.blob_oid(gitoid.lfs_pointer(digest, size)), digest
