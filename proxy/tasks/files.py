"""Files that a human keeps under version control, replaced whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from proxy.errors import StoreError, disk_failed


def replace(file: Path, content: bytes) -> None:
    """Put `content` in the place of `file`: after a crash it is the old text or the new one.

    Keeps the file's mode, and a symbolic link stays a link. Raises: StoreError.
    """
    target = file.resolve()
    try:
        try:
            mode = stat.S_IMODE(target.stat().st_mode)
        except FileNotFoundError:
            mode = 0o644
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        try:
            with open(handle, "wb") as out:  # noqa: PTH123  # the handle is the point
                out.write(content)
                out.flush()
                os.fchmod(out.fileno(), mode)
                os.fsync(out.fileno())
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        _sync_directory(target.parent)
    except OSError as e:
        raise disk_failed(f"write {file}", e) from e


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """One process at a time; the others wait. Blocks, so hold it for a moment only.

    The directory itself is locked: a lock file beside files under version control would be litter.
    Raises: StoreError.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise StoreError(f"cannot open {directory}: {e.strerror or e}") from e
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as e:
            raise StoreError(f"cannot lock {directory}: {e.strerror or e}") from e
        yield
    finally:
        os.close(handle)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
