"""A bundle: pins and their blobs in one file, to be carried over an air gap.

A tar archive (GNU tar's headers, its base-256 sizes from 8 GiB on) of plain files:

    manifest.json               first
    blobs/sha256/<64 hex>       every blob of the manifest's `blobs`, once, in that order
    two blocks of zeros         the end; nothing follows

Nothing else is a bundle: no folders, links, extended headers or other orders. So its size is known
before it is written, and it can be written to a pipe and read from one. A bundle that was split is
its parts NAME.000, NAME.001, … one after the other.

    {
     "hubpin_bundle": 1,                           format version
     "tool": "hubpin 0.1.0",                       who wrote it
     "blobs": [{"sha256": "…", "size": 612}, …],   what this file brings
     "allow": [{"pair": "org/m@v23", …}, …],       how each pair is allowed there: see _Allow
     "lock": {…}                                   allowlist.lock, of these pairs
    }

A blob that `lock` needs and `blobs` does not name came with an earlier bundle.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated

import msgspec

from proxy.errors import BundleInvalid, ConfigError, InvalidName
from proxy.hub.names import Digest, Pair, RepoId, Revision
from proxy.pins import lock as locks
from proxy.pins.allowlist import Allowed
from proxy.pins.lock import Entry, Lock
from proxy.tasks.volumes import Source

FORMAT = 1
BLOCK = 512
MANIFEST = "manifest.json"
MAX_MANIFEST = 64 << 20  # bytes
END = bytes(2 * BLOCK)
_MAX_DEPTH = 64  # of what a lock holds and does not look at: `info`, and fields of newer tools
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_KINDS = {
    tarfile.AREGTYPE: "a file of an old kind",
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.CONTTYPE: "a contiguous file",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGNAME: "a long name",
    tarfile.GNUTYPE_LONGLINK: "a long name",
    tarfile.XHDTYPE: "an extended header",
    tarfile.XGLTYPE: "an extended header",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says about itself; valid in itself, and believed no further."""

    lock: Lock
    allowed: tuple[Allowed, ...]  # how each pair was allowed where it comes from
    blobs: Mapping[Digest, int]  # digest → bytes, in the order of the archive
    tool: str = f"hubpin {version('hubpin')}"

    @property
    def entries(self) -> dict[Digest, list[Entry]]:
        """The files that have each blob, those of earlier bundles included."""
        found: dict[Digest, list[Entry]] = {}
        for pin in self.lock.pins.values():
            for entry in pin.files.values():
                found.setdefault(entry.digest, []).append(entry)
        return found


def archive_size(manifest: bytes, blobs: Mapping[Digest, int]) -> int:
    """Bytes of the whole bundle."""
    members = (len(manifest), *blobs.values())
    return sum(BLOCK + size + len(padding(size)) for size in members) + len(END)


# --- members -------------------------------------------------------------------------------------


def blob_name(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def header(name: str, size: int) -> bytes:
    """The block before a member's bytes; the same for the same bytes, whoever writes it."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o444
    return member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def padding(size: int) -> bytes:
    """What follows a member's bytes."""
    return bytes(-size % BLOCK)


def read_header(source: Source, wanted: str) -> int:
    """Bytes of the next member, which must be the plain file `wanted`. Raises: BundleInvalid."""
    block = source.read(BLOCK)
    if len(block) < BLOCK:
        raise BundleInvalid(source.name, f"it is cut short before {wanted}{source.hint}")
    if block == bytes(BLOCK) and wanted != MANIFEST:
        raise BundleInvalid(source.name, f"it ends where {wanted} should be")
    try:
        # One block, and never what tarfile does with a series of them: no extended headers.
        member = tarfile.TarInfo.frombuf(block, "ascii", "surrogateescape")
    except tarfile.HeaderError as e:
        where = "it is no bundle" if wanted == MANIFEST else f"no tar header before {wanted}"
        raise BundleInvalid(source.name, f"{where} ({e})") from e
    name = ascii(member.name[:200])
    if member.type != tarfile.REGTYPE:
        kind = _KINDS.get(member.type, f"of the unknown kind {member.type!r}")
        raise BundleInvalid(source.name, f"its member {name} is {kind}; only plain files may be")
    if member.name != MANIFEST and _BLOB.fullmatch(member.name) is None:
        raise BundleInvalid(source.name, f"it has a member {name}; no bundle has such a name")
    if member.name != wanted:
        raise BundleInvalid(
            source.name, f"it has {name} where {wanted} should be: twice, extra or out of order"
        )
    if member.size < 0:
        raise BundleInvalid(source.name, f"{name} has a negative size")
    return member.size


def read_padding(source: Source, size: int, name: str) -> None:
    """Raises: BundleInvalid."""
    if source.read(-size % BLOCK) != padding(size):
        raise BundleInvalid(source.name, f"it is damaged or cut short after {name}{source.hint}")


def read_end(source: Source) -> None:
    """Raises: BundleInvalid, if the end is missing or something follows it."""
    end = source.read(len(END))
    if len(end) < len(END):
        raise BundleInvalid(source.name, f"it is cut short at the end{source.hint}")
    if end != END or source.read(1):
        raise BundleInvalid(source.name, "it has more members than its manifest, or more bytes")


# --- the manifest --------------------------------------------------------------------------------


class _Version(msgspec.Struct):
    hubpin_bundle: int


class _Blob(msgspec.Struct):
    sha256: str
    size: Annotated[int, msgspec.Meta(ge=0)]


class _Allow(msgspec.Struct):
    pair: str
    serve_as: list[str] | None = None
    aliases: list[str] = []
    notice: str = ""
    share_lan: bool = False


class _Manifest(msgspec.Struct):
    tool: str
    blobs: list[_Blob]
    lock: msgspec.Raw
    allow: list[_Allow] = []


def dumps(manifest: Manifest) -> bytes:
    """The same manifest gives the same bytes."""
    about = {
        "hubpin_bundle": FORMAT,
        "tool": manifest.tool,
        "blobs": [{"sha256": d.hex, "size": size} for d, size in manifest.blobs.items()],
        "allow": [
            {
                "pair": one.pair,
                "serve_as": None if one.serve_as is None else list(one.serve_as),
                "aliases": list(one.aliases),
                "notice": one.notice,
                "share_lan": one.share_lan,
            }
            for one in manifest.allowed
        ],
    }
    rows = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in about.items()]
    lock = locks.dumps(manifest.lock).decode().rstrip()
    return "\n".join(["{", *rows, f' "lock": {lock}', "}", ""]).encode()


def read_manifest(source: Source) -> Manifest:
    """The manifest, with which every bundle begins. Blocking. Raises: BundleInvalid, StoreError."""
    size = read_header(source, MANIFEST)
    if size > MAX_MANIFEST:
        raise BundleInvalid(source.name, f"its manifest has {size:,} bytes; that is too many")
    content = source.read(size)
    if len(content) < size:
        raise BundleInvalid(source.name, f"it is cut short in its manifest{source.hint}")
    read_padding(source, size, MANIFEST)
    try:
        return loads(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise BundleInvalid(source.name, f"its manifest makes no sense: {e}") from e
    except ConfigError as e:
        raise BundleInvalid(source.name, f"the lock in its manifest: {e.problem}") from e
    except (InvalidName, ValueError) as e:
        raise BundleInvalid(source.name, f"its manifest: {e}") from e


def loads(content: bytes) -> Manifest:
    """Raises: msgspec.MsgspecError, RecursionError, ConfigError, InvalidName, ValueError."""
    found = msgspec.json.decode(content, type=_Version).hubpin_bundle
    if found != FORMAT:
        raise ValueError(f"it has format {found}, this hubpin reads {FORMAT}; use a newer hubpin")
    raw = msgspec.json.decode(content, type=_Manifest)
    lock = locks.loads(bytes(raw.lock))
    _check_depth(lock)
    if not lock.pins:
        raise ValueError("it brings no pair")
    blobs: dict[Digest, int] = {}
    for blob in raw.blobs:
        digest = Digest.of_hex(blob.sha256)
        if digest in blobs:
            raise ValueError(f"it names {digest} twice")
        blobs[digest] = blob.size
    _check_sizes(lock, blobs)
    return Manifest(lock, tuple(_allowed(lock, one) for one in raw.allow), blobs, raw.tool)


def _allowed(lock: Lock, raw: _Allow) -> Allowed:
    pin = lock.pins.get(Pair(raw.pair))
    if pin is None:
        raise ValueError(f"it allows {raw.pair!a} and does not lock it")
    return Allowed(
        repo=pin.repo,
        revision=pin.revision,
        line=0,
        serve_as=None if raw.serve_as is None else tuple(Revision(one) for one in raw.serve_as),
        aliases=tuple(RepoId(one) for one in raw.aliases),
        include=pin.include,
        exclude=pin.exclude,
        notice=raw.notice,
        share_lan=raw.share_lan,
    )


def _check_sizes(lock: Lock, blobs: Mapping[Digest, int]) -> None:
    """Whoever has a digest has one size, and every blob belongs to a file."""
    sizes: dict[Digest, int] = {}
    for pin in lock.pins.values():
        for entry in pin.files.values():
            if sizes.setdefault(entry.digest, entry.size) != entry.size:
                raise ValueError(f"{pin.pair} {entry.path!a}: {entry.digest} has two sizes")
    for digest, size in blobs.items():
        if digest not in sizes:
            raise ValueError(f"no file of its lock has {digest}")
        if sizes[digest] != size:
            raise ValueError(f"{digest} has {size} bytes here and {sizes[digest]} in its lock")


def _check_depth(lock: Lock) -> None:
    for pin in lock.pins.values():
        _check_level((pin.info, pin.extra, *(one.extra for one in pin.files.values() if one.extra)))
    _check_level((lock.extra,))


def _check_level(level: Iterable[object]) -> None:
    """Values level by level, without recursion: depth is what is checked."""
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        if not inner:
            return
        level = inner
    raise ValueError("its JSON is nested too deeply")
