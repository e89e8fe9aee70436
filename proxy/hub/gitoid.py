"""Git object ids: the Hub's etag of files that are not LFS, and of what git keeps for LFS files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from proxy.hub.names import Digest, GitOid


class BlobHasher:
    """The git blob id of bytes that arrive in pieces; their number must be known before."""

    def __init__(self, size: int) -> None:
        # SHA-1 is git's choice of name here, not a signature.
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, piece: bytes) -> None:
        self._sha1.update(piece)

    def oid(self) -> GitOid:
        return GitOid(self._sha1.hexdigest())


def blob_oid(content: bytes) -> GitOid:
    hasher = BlobHasher(len(content))
    hasher.update(content)
    return hasher.oid()


def lfs_pointer(digest: Digest, size: int) -> bytes:
    """The text that git stores in place of an LFS file (git-lfs, docs/spec.md, "The Pointer")."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest.hex}\nsize {size}\n"
    ).encode()


def object_oid(kind: str, body: bytes) -> GitOid:
    """The id of a commit, a tree or a blob."""
    head = b"%b %d\0" % (kind.encode(), len(body))
    return GitOid(hashlib.sha1(head + body, usedforsecurity=False).hexdigest())


def tree_oid(children: Iterable[tuple[str, GitOid, bool]]) -> GitOid:
    """The id of a git tree of `(name, oid, is_folder)`, with every file of mode 100644."""
    return object_oid("tree", tree_body(children))


def tree_body(children: Iterable[tuple[str, GitOid, bool]]) -> bytes:
    """The bytes of such a tree.

    git sorts a folder as if its name ended in a slash (git, tree.c, base_name_compare).
    """
    rows = sorted(
        (name.encode() + (b"/" if folder else b""), name.encode(), oid, folder)
        for name, oid, folder in children
    )
    return b"".join(
        (b"40000 " if folder else b"100644 ") + name + b"\0" + bytes.fromhex(oid)
        for _, name, oid, folder in rows
    )
