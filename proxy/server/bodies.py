"""The Hub's JSON for a locked snapshot, made once per snapshot and query and kept with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from proxy.hub import wire
from proxy.hub.names import CommitSha
from proxy.hub.wire import EPOCH, Json, RefKind
from proxy.pins.catalog import Snapshot
from proxy.pins.lock import Entry

# Keys that some client takes for granted (huggingface_hub 0.20, hf_api.py, ModelInfo).
_REQUIRED: Json = {
    "private": False,
    "downloads": 0,
    "likes": 0,
    "tags": [],
    "lastModified": EPOCH,
    "disabled": False,
}
_KEPT_PER_SNAPSHOT = 32


class Bodies:
    """Answers that depend on nothing but the snapshot; they go when the catalog lets go of it."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Snapshot, dict[tuple[object, ...], bytes]] = (
            WeakKeyDictionary()
        )

    def info(self, snapshot: Snapshot, *, blobs: bool) -> bytes:
        """The repository object with every file; with sizes and digests if `blobs`."""
        return self._keep(
            snapshot, ("info", blobs), lambda: encode(info_json(snapshot, blobs=blobs))
        )

    def tree(self, snapshot: Snapshot, folder: str, *, recursive: bool) -> bytes:
        """Everything below a folder, on one page. Raises: EntryNotFound."""

        def make() -> bytes:
            return encode([
                _item(snapshot, child)
                for child in snapshot.children(folder, recursive=recursive)
            ])  # fmt: skip

        return self._keep(snapshot, ("tree", folder, recursive), make)

    def _keep(
        self, snapshot: Snapshot, key: tuple[object, ...], make: Callable[[], bytes]
    ) -> bytes:
        kept = self._kept.setdefault(snapshot, {})
        body = kept.get(key)
        if body is None:
            body = make()
            if len(kept) >= _KEPT_PER_SNAPSHOT:
                kept.pop(next(iter(kept)))
            kept[key] = body
        return body


def info_json(snapshot: Snapshot, *, blobs: bool) -> Json:
    """The object that the Hub gave, with `sha` and `siblings` as they are locked."""
    name = snapshot.repo.name
    return {
        **_REQUIRED,
        "_id": snapshot.commit[:24],
        **snapshot.info,
        "id": name,
        "modelId": name,
        "sha": snapshot.commit,
        "lastModified": wire.hub_date(snapshot.info.get("lastModified", snapshot.pin.date)),
        "createdAt": wire.hub_date(snapshot.info.get("createdAt", snapshot.pin.date)),
        # Who may read it is decided here, and a client must not be asked to log in.
        "private": False,
        "gated": False,
        "siblings": [_sibling(entry, blobs=blobs) for entry in snapshot.files.values()],
    }


def paths_info(snapshot: Snapshot, paths: Iterable[str]) -> bytes:
    """Files and folders among `paths`, each once; what is not there is left out."""
    found: list[Json] = []
    for path in dict.fromkeys(text.strip("/") for text in paths):
        entry = snapshot.files.get(path)
        if entry is not None:
            found.append(_item(snapshot, entry))
        elif path and path in snapshot.folders:
            found.append(_item(snapshot, path))
    return encode(found)


def refs(pairs: Iterable[tuple[str, RefKind, CommitSha]], *, pull_requests: bool) -> bytes:
    lists: dict[str, list[Json]] = {"branches": [], "tags": [], "converts": []}
    if pull_requests:
        lists["pullRequests"] = []
    for name, kind, commit in pairs:
        if kind.value in lists:
            lists[kind.value].append(wire.ref_json(name, kind, commit))
    return encode(lists)


def commits(snapshot: Snapshot) -> bytes:
    """The one commit that is locked."""
    return encode(
        [
            {
                "id": snapshot.commit,
                "title": f"Locked as {snapshot.pair}",
                "message": "",
                "authors": [],
                "date": snapshot.pin.date,
            }
        ]
    )


def listing(snapshots: Iterable[Snapshot]) -> bytes:
    return encode([info_json(snapshot, blobs=False) for snapshot in snapshots])


def encode(value: object) -> bytes:
    """Compact: hfd.sh greps for `"rfilename":"` without a space."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _sibling(entry: Entry, *, blobs: bool) -> Json:
    if not blobs:
        return {"rfilename": entry.path}
    sibling: Json = {"rfilename": entry.path, "size": entry.size, "blobId": entry.git_oid}
    if entry.lfs:
        lfs = wire.lfs_json(entry.digest, entry.size)
        sibling["lfs"] = {
            "sha256": entry.digest.hex, "size": entry.size, "pointerSize": lfs["pointerSize"],
        }  # fmt: skip
    return sibling


def _item(snapshot: Snapshot, child: Entry | str) -> Json:
    if isinstance(child, Entry):
        digest = child.digest if child.lfs else None
        return wire.file_json(child.path, child.size, child.git_oid, digest)
    return wire.folder_json(child, snapshot.folders[child])
