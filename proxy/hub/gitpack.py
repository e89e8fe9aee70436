"""Git's wire: pkt-lines, side-band packets and packs.

pkt-line   4 hex digits of length, themselves included, and that many bytes less 4;
           0000 is a flush, 0001 a delimiter (git, gitprotocol-common(5), gitprotocol-v2(5))
side-band  a pkt-line whose first byte is the channel: 1 the pack, 2 what git shows after
           `remote:`, 3 a fatal error
pack       "PACK", version 2, number of objects; per object its kind and size in 7-bit groups
           and its zlib stream; SHA-1 of all that (git, gitformat-pack(5))
"""

from __future__ import annotations

import enum
import hashlib
import zlib
from collections.abc import Callable, Iterator

FLUSH = b"0000"
DELIMITER = b"0001"
BAND_ROOM = 65515  # bytes of a channel that one pkt-line holds (side-band-64k)
_KINDS = {"commit": 1, "tree": 2, "blob": 3}
_LEVEL = 1  # of zlib: most of a model's small files are read once and thrown away


class Mark(enum.Enum):
    """A pkt-line that is no data."""

    FLUSH = 0
    DELIMITER = 1


def pkt(line: str | bytes) -> bytes:
    data = line.encode() if isinstance(line, str) else line
    return b"%04x%b" % (len(data) + 4, data)


def band(channel: int, data: bytes) -> bytes:
    """A side-band packet; `data` is at most BAND_ROOM bytes."""
    return pkt(bytes([channel]) + data)


def banded(size: int) -> int:
    """How many bytes `size` bytes become in side-band packets."""
    return size + 5 * -(-size // BAND_ROOM)


def pkts(body: bytes) -> Iterator[bytes | Mark]:
    """The pkt-lines of a request, without the newline that may end them.

    Raises: ValueError, if it is none.
    """
    at = 0
    while at < len(body):
        digits = body[at : at + 4]
        if len(digits) != 4 or not all(c in b"0123456789abcdefABCDEF" for c in digits):
            raise ValueError(f"no pkt-line at byte {at}")
        length = int(digits, 16)
        if length in (0, 1):
            yield Mark(length)
            at += 4
        elif length < 4 or at + length > len(body):
            raise ValueError(f"a pkt-line of {length} bytes at byte {at} of {len(body)}")
        else:
            yield body[at + 4 : at + length].removesuffix(b"\n")
            at += length


class PackWriter:
    """Writes a pack piece by piece to whatever takes bytes."""

    def __init__(self, write: Callable[[bytes], object], count: int) -> None:
        """`count` objects will follow."""
        self._write = write
        # SHA-1 is git's choice of checksum, not a signature.
        self._sum = hashlib.sha1(usedforsecurity=False)
        self._put(b"PACK" + (2).to_bytes(4) + count.to_bytes(4))
        self._zlib = zlib.compressobj(_LEVEL)

    def begin(self, kind: str, size: int) -> None:
        """An object of `size` bytes, which `feed` brings."""
        low, size = size & 15, size >> 4
        head = bytearray([_KINDS[kind] << 4 | low])
        while size:
            head[-1] |= 128
            head.append(size & 127)
            size >>= 7
        self._put(bytes(head))
        self._zlib = zlib.compressobj(_LEVEL)

    def feed(self, piece: bytes) -> None:
        self._put(self._zlib.compress(piece))

    def end(self) -> None:
        """Of the object."""
        self._put(self._zlib.flush())

    def close(self) -> None:
        """After the last object."""
        self._write(self._sum.digest())

    def _put(self, data: bytes) -> None:
        self._sum.update(data)
        self._write(data)
