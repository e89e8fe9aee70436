"""BlobStore: verified bytes, by digest."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import BinaryIO, Protocol

from proxy.hub.names import Digest


class BlobStore(Protocol):
    """Verified bytes, by digest. A backend is anything with these verbs.

    Absence is an answer (`None`, or nothing listed). Not knowing is not: a backend that
    cannot tell raises StoreError, so that nobody deletes or refetches on a guess.
    """

    async def size(self, digest: Digest) -> int | None:
        """Bytes held under this digest, or None if it is certainly not here.

        Raises: BlobAltered, if what lies here is not untouched since it was adopted: hash it,
        then `adopt` or `quarantine` it.
        """
        ...

    def open(self, digest: Digest) -> BinaryIO | None:
        """The blob as an open local file, for sendfile; None if it is certainly not here.

        Meant for the event loop: a few system calls, no hashing. The file stays readable however
        long it is open, whatever becomes of the blob. Raises: BlobAltered, StoreError.
        """
        ...

    def load(self, digest: Digest, size: int) -> bytes | None:
        """All of a small blob, if it is held with that size and is untouched.

        None: `open` it, which tells why. Meant for the event loop, as `open` is.
        """
        ...

    def read(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[bytes]:
        """The bytes [start, stop) in chunks; stop=None means to the end.

        Reads what lies there, altered or not: `verify` depends on it. Raises: StoreError, also
        if the blob is not held.
        """
        ...

    async def adopt(self, digest: Digest, file: Path) -> None:
        """Take over a local file whose bytes the caller has verified.

        All or nothing, and idempotent: adopting a digest twice leaves one copy. When it returns,
        the blob is durable and the file is gone from `file`.
        """
        ...

    async def confirm(self, digest: Digest) -> None:
        """The caller hashed a held blob and found it right: it is as good as adopted again."""
        ...

    async def quarantine(self, digest: Digest) -> None:
        """Put a blob that went bad aside: it is not held any more, and a human may look at it."""
        ...

    async def delete(self, digest: Digest) -> None:
        """Forget the blob; deleting what is not there is fine."""
        ...

    def list(self) -> AsyncIterator[tuple[Digest, int]]:
        """Every digest held with its size, in no particular order."""
        ...
