"""Bytes that come from this machine: hashed while they are copied into the spool, then adopted."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import BinaryIO

from proxy.errors import StoreError
from proxy.hub.gitoid import BlobHasher
from proxy.hub.names import Digest, GitOid
from proxy.mirror import flock

SUFFIX = ".intake"  # of such a copy in the spool
RUN = 16 << 20  # bytes between two words about one file
PIECE = 1 << 20


class Intake:
    """What came of one blob so far. Locked in the spool, so that gc leaves it alone.

    Its methods block: call them in a thread.
    """

    def __init__(self, spool: Path | None, git_size: int | None = None) -> None:
        """Without a spool the bytes are hashed and not kept; with `git_size`, their number, git's
        name of them is computed too. Raises: StoreError."""
        self.path = spool / f"{secrets.token_hex(16)}{SUFFIX}" if spool is not None else None
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._git = BlobHasher(git_size) if git_size is not None else None
        self._file: BinaryIO | None = None
        if self.path is None:
            return
        try:
            self._file = flock.create(self.path)
        except OSError as e:
            raise StoreError(f"cannot write {self.path}: {e.strerror or e}") from e

    @property
    def digest(self) -> Digest:
        return Digest.of_hex(self._sha256.hexdigest())

    @property
    def oid(self) -> GitOid | None:
        return self._git.oid() if self._git is not None else None

    def add(self, piece: bytes) -> None:
        """Raises: StoreError."""
        self._sha256.update(piece)
        if self._git is not None:
            self._git.update(piece)
        self.size += len(piece)
        if self._file is None:
            return
        view = memoryview(piece)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as e:
            raise StoreError(f"cannot write {self.path}: {e.strerror or e}") from e

    def close(self) -> None:
        """Let go, and leave nothing in the spool that was not adopted."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def git_oid(file: BinaryIO, size: int) -> GitOid:
    """What git calls the content of an open file. Blocking."""
    hasher = BlobHasher(size)
    while piece := file.read(PIECE):
        hasher.update(piece)
    return hasher.oid()
