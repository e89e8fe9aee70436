"""Advisory file locks: the kernel lets go of them when a process dies, however it dies.

Lock files are never unlinked: two processes could each hold "the" lock on a different file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from proxy.errors import StoreError


class Held(StoreError):
    """Somebody else holds the lock."""

    def __init__(self, file: Path) -> None:
        super().__init__(f"{file} is locked by another process")
        self.file = file


def lock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock now; False if somebody else has it. Closing `fd` lets go."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def create(file: Path) -> BinaryIO:
    """A file of our own, open for writing and locked: nobody takes it for abandoned.

    Raises: OSError.
    """
    while True:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if lock(fd) and _is_at(file, fd):
            return os.fdopen(fd, "wb", buffering=0)
        os.close(fd)  # somebody cleaned up in between


def remove_idle(file: Path) -> bool:
    """Unlink a file that nobody has locked; False if somebody has, or if it is nothing of ours.

    Raises: OSError.
    """
    try:
        # O_NONBLOCK: a FIFO planted here must not hang us.
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not lock(fd):
            return False
        if _is_at(file, fd):
            file.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


def _is_at(file: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(file), os.fstat(fd))
    except FileNotFoundError:
        return False


def unlock(fd: int) -> None:
    """Let go although copies of `fd` stay open: they share its lock."""
    fcntl.flock(fd, fcntl.LOCK_UN)


@contextmanager
def holding(file: Path, *, shared: bool = False) -> Iterator[int]:
    """The lock on `file` for the length of the block; yields its descriptor.

    Raises: Held, at once if somebody else has it; StoreError.
    """
    try:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        raise StoreError(f"cannot open {file}: {e}") from e
    try:
        if not lock(fd, shared=shared):
            raise Held(file)
        yield fd
    finally:
        os.close(fd)


def sign(fd: int) -> None:
    """Write our process id into a lock file that we hold; a full disk may leave it nameless."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def signature(file: Path) -> int | None:
    """The process id in a lock file; None if it cannot be read."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
