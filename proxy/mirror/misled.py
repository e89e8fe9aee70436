"""Which blobs some client may hold wrong bytes of.

    <data>/misled      one "<hex> <limit>" a line: clients were shown up to `limit` bytes that were
                       wrong, or were never found to be right

The Hub's client resumes a broken download with `Range` and then compares sizes, never digests
(huggingface_hub, file_download.py, http_get). Whoever holds a bad beginning must not get a good
end, so for these blobs the server answers such a request with the whole file. The file outlives
restarts, as the client's half-file does.
"""

from __future__ import annotations

import os
from pathlib import Path

from proxy.errors import InvalidName, StoreError
from proxy.hub.names import Digest


class Misled:
    """Digests with how far clients were misled about each; shared by processes through its file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._limits: dict[Digest, int] = {}
        self._seen = (0, 0)  # size and mtime of the file when it was read last

    def limit(self, digest: Digest) -> int:
        """Offset below which some client may hold wrong bytes; 0 if none does."""
        self._refresh()
        return self._limits.get(digest, 0)

    def add(self, digest: Digest, limit: int) -> None:
        """Remember, durably. Raises: StoreError."""
        if limit <= self._limits.get(digest, 0):
            return
        try:
            fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"{digest.hex} {limit}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as e:
            raise StoreError(f"cannot write {self._file}: {e}") from e
        self._limits[digest] = limit

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
            raise StoreError(f"cannot read {self._file}: {e}") from e
        for line in lines:
            name, _, limit = line.partition(" ")
            try:
                digest = Digest.of_hex(name)
                self._limits[digest] = max(int(limit), self._limits.get(digest, 0))
            except (InvalidName, ValueError):
                continue  # the end of a line that a crash cut
        self._seen = seen
