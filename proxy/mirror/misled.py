"""Which blobs some client may hold wrong bytes of.

    <data>/misled      one "<hex> <limit>" a line: clients were shown up to `limit` bytes that were
                       wrong, or were never found to be right

The Hub's client resumes a broken download with `Range` and then compares sizes, never digests
(huggingface_hub, file_download.py, http_get). Whoever holds a bad beginning must not get a good
end, so for these blobs the server answers such a request with the whole file. The file outlives
restarts, as the client's half-file does.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from proxy.errors import InvalidName, disk_failed
from proxy.hub.names import Digest


class Misled:
    """Digests with how far clients were misled about each; shared by processes through its file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._limits: dict[Digest, int] = {}
        self._written: dict[Digest, int] = {}  # what of it is in the file
        self._seen = (0, 0)  # size and mtime of the file when it was read last

    def limit(self, digest: Digest) -> int:
        """Offset below which some client may hold wrong bytes; 0 if none does."""
        self._refresh()
        return self._limits.get(digest, 0)

    def add(self, digest: Digest, limit: int) -> None:
        """Remember, durably. Raises: StoreError; this process remembers it all the same."""
        self._limits[digest] = max(limit, self._limits.get(digest, 0))
        self._refresh()
        if limit <= self._written.get(digest, 0):
            return
        # The line before may have been cut by a crash: this one begins anew.
        line = f"\n{digest.hex} {limit}\n".encode()
        try:
            fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, line) != len(line):
                    raise OSError(errno.ENOSPC, "only a part of it was written")
                os.fsync(fd)
            finally:
                os.close(fd)
            self._sync_folder()
        except OSError as e:
            raise disk_failed(f"write {self._file}", e) from e
        self._written[digest] = limit

    def _sync_folder(self) -> None:
        """The first line makes the file, and its name has to be on disk as well."""
        if self._written:
            return
        fd = os.open(self._file.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _refresh(self) -> None:
        try:
            status = os.stat(self._file)
            seen = (status.st_size, status.st_mtime_ns)
            if seen == self._seen:
                return
            lines = self._file.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return
        except OSError as e:
            raise disk_failed(f"read {self._file}", e) from e
        for line in lines:
            name, _, limit = line.partition(" ")
            try:
                digest = Digest.of_hex(name)
                self._written[digest] = max(int(limit), self._written.get(digest, 0))
                self._limits[digest] = max(self._written[digest], self._limits.get(digest, 0))
            except (InvalidName, ValueError):
                continue  # the end of a line that a crash cut
        self._seen = seen
