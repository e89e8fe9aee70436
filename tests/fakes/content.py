"""File contents that tests can know without storing them: the same every time, of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from proxy.hub.gitoid import BlobHasher
from proxy.hub.names import Digest, GitOid

BLOCK = 1 << 20
_STEP = 4 * BLOCK


class Blob(Protocol):
    """Bytes that can be read at any offset."""

    @property
    def size(self) -> int: ...
    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop), cut at the end."""
        ...

    def sha256(self) -> str:
        """64 hex digits."""
        ...

    def git_oid(self) -> GitOid: ...


@dataclass(frozen=True, slots=True)
class Content:
    """Pseudo-random bytes that depend on nothing but the seed and the size.

    One block of 1 MiB is repeated; each copy begins with its number and the seed, so that bytes
    from a wrong offset or of another file are never the right ones.
    """

    seed: str | int
    size: int

    def read(self, start: int, stop: int) -> bytes:
        stop = min(stop, self.size)
        block = _block(str(self.seed))
        pieces: list[bytes | memoryview] = []
        while start < stop:
            number, offset = divmod(start, BLOCK)
            length = min(BLOCK - offset, stop - start)
            head = _head(number)
            if offset < len(head):
                pieces.append(head[offset : offset + length])
            skip = max(offset, len(head))
            if skip < offset + length:
                pieces.append(block[skip : offset + length])
            start += length
        return b"".join(pieces)

    def sha256(self) -> str:
        return _sha256(self)

    def git_oid(self) -> GitOid:
        return _git_oid(self)


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that the test wrote out."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, start: int, stop: int) -> bytes:
        return self.content[start:stop]

    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def git_oid(self) -> GitOid:
        return _git_oid(self)


@dataclass(frozen=True, slots=True)
class Twisted:
    """The same number of bytes, and one bit (or each of them) is wrong."""

    right: Blob
    everywhere: bool = False

    @property
    def size(self) -> int:
        return self.right.size

    def read(self, start: int, stop: int) -> bytes:
        content = self.right.read(start, stop)
        if self.everywhere:
            return content.translate(_INVERTED)
        at = self.size // 3 - start
        if not 0 <= at < len(content):
            return content
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    def sha256(self) -> str:
        return _sha256(self)

    def git_oid(self) -> GitOid:
        return _git_oid(self)


@dataclass(frozen=True, slots=True)
class Longer:
    """The right bytes up to `end`, and more that nobody asked for."""

    right: Blob
    end: int
    by: int

    @property
    def size(self) -> int:
        return self.end + self.by

    def read(self, start: int, stop: int) -> bytes:
        stop = min(stop, self.size)
        content = self.right.read(start, min(stop, self.end)) if start < self.end else b""
        return content + b"+" * (stop - start - len(content))

    def sha256(self) -> str:
        return _sha256(self)

    def git_oid(self) -> GitOid:
        return _git_oid(self)


_INVERTED = bytes(255 - byte for byte in range(256))


def as_blob(content: Blob | bytes | str) -> Blob:
    if isinstance(content, str):
        content = content.encode()
    return Literal(content) if isinstance(content, bytes) else content


def digest(blob: Blob) -> Digest:
    return Digest.of_hex(blob.sha256())


def pieces(blob: Blob, start: int, stop: int, step: int) -> Iterator[bytes]:
    """The bytes [start, stop) in pieces of `step` bytes."""
    while start < stop:
        yield blob.read(start, min(start + step, stop))
        start += step


def _head(number: int) -> bytes:
    return b"\0block %016x\0" % number


@lru_cache(maxsize=32)
def _block(seed: str) -> memoryview:
    return memoryview(hashlib.shake_256(seed.encode()).digest(BLOCK))


@lru_cache(maxsize=1024)
def _sha256(blob: Blob) -> str:
    hasher = hashlib.sha256()
    for piece in pieces(blob, 0, blob.size, _STEP):
        hasher.update(piece)
    return hasher.hexdigest()


@lru_cache(maxsize=4096)
def _git_oid(blob: Blob) -> GitOid:
    hasher = BlobHasher(blob.size)
    for piece in pieces(blob, 0, blob.size, _STEP):
        hasher.update(piece)
    return hasher.oid()
