"""Two sites and what is carried between them, and bundles that no honest tool would write."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from proxy.hub.names import Digest, Pair
from proxy.pins import lock as locks
from proxy.pins.lock import Pin
from proxy.store.local import LocalStore
from proxy.tasks import bundle
from proxy.tasks import export as exporting
from proxy.tasks import import_ as importing
from proxy.tasks.export import export
from proxy.tasks.import_ import import_bundle
from proxy.tasks.volumes import FileSink, Source, find
from proxy.upstream.offline import OfflineUpstream
from tests.fakes.memory import FakeHub
from tests.pins import examples
from tests.tasks.conftest import Site, collect

V23, V24 = "org/m@v23", "org/m@v24"
FILES = {"config.json": b"{}", "model.bin": b"weights" * 1000, "sub/vocab.txt": b"a\nb\n"}
NEW_FILES = {**FILES, "model.bin": b"changed" * 1000}


async def site_with(folder: Path, *pins: tuple[Pin, Mapping[str, bytes]]) -> Site:
    """A site that locked and holds these files, and whose Hub is down."""
    site = empty_site(folder)
    site.allow(*(f"- {pin.pair}" for pin, _ in pins))
    site.config.lock.write_bytes(locks.dumps(examples.lock_of(*(pin for pin, _ in pins))))
    async with site.mirror(OfflineUpstream(), offline=True) as mirror:
        store = mirror.store
        for pin, files in pins:
            for path, content in files.items():
                part = mirror.spool / "part"
                part.write_bytes(content)
                await store.adopt(pin.files[path].digest, part)
    return site


async def two_versions(folder: Path) -> Site:
    """A site with two versions that share two of three files."""
    return await site_with(folder, example(V23), example(V24, NEW_FILES, commit=examples.B))


def expectant_site(folder: Path) -> Site:
    """A site that allows both versions and holds nothing."""
    site = empty_site(folder)
    site.allow(f"- {V23}", f"- {V24}")
    return site


def empty_site(folder: Path) -> Site:
    """A site that allows nothing and holds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    site = Site(folder, FakeHub())
    site.allow()
    return site


def example(
    pair: str = "org/m@main", files: Mapping[str, bytes] | None = None, *, commit: str = examples.A
) -> tuple[Pin, Mapping[str, bytes]]:
    contents = dict(FILES if files is None else files)
    return examples.pin(pair, contents, commit=commit), contents


async def run_export(
    site: Site, file: Path, *pairs: str, split: int = 0, since: str = ""
) -> exporting.Finished:
    async with site.mirror(OfflineUpstream(), offline=True) as mirror:
        known = await exporting.known(mirror, since) if since else frozenset[Digest]()
        chosen = [Pair(pair) for pair in pairs] or None
        events = await collect(export(mirror, chosen, FileSink(file, split), since=known))
    assert isinstance(events[-1], exporting.Finished)
    return events[-1]


async def run_import(
    site: Site, *files: Path, accept_pins: bool = True, force: bool = False, dry_run: bool = False
) -> list[importing.Event]:
    source = Source(find(files))
    try:
        async with site.mirror(OfflineUpstream(), offline=True) as mirror:
            return await collect(
                import_bundle(mirror, source, accept_pins=accept_pins, force=force, dry_run=dry_run)
            )
    finally:
        source.close()


def result(events: Sequence[importing.Event]) -> importing.Finished:
    last = events[-1]
    assert isinstance(last, importing.Finished)
    return last


async def served(site: Site) -> dict[str, dict[str, bytes]]:
    """What a client would get: the files of each pair that is allowed, locked and held."""
    answer: dict[str, dict[str, bytes]] = {}
    async with site.mirror(OfflineUpstream(), offline=True) as mirror:
        for snapshot in mirror.catalog.snapshots():
            files = answer[snapshot.pair] = {}
            for path, entry in snapshot.files.items():
                async with aclosing(mirror.store.read(entry.digest)) as pieces:
                    files[path] = b"".join([piece async for piece in pieces])
    return answer


async def held(site: Site) -> set[Digest]:
    return {digest async for digest, _ in LocalStore(site.config.data).list()}


# --- archives ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Member:
    """A member of an archive, and whatever somebody may write in its place."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    size: int | None = None  # that the header says
    linkname: str = ""

    def dumps(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.type, info.linkname = self.type, self.linkname
        info.size = len(self.content) if self.size is None else self.size
        return (
            info.tobuf(tarfile.GNU_FORMAT) + self.content + bytes(-len(self.content) % bundle.BLOCK)
        )


@dataclass(slots=True)
class Archive:
    """The parts of a bundle, to be changed and put together again."""

    manifest: dict[str, object]
    blobs: list[Member]
    front: list[Member] = field(default_factory=list)  # before the manifest
    back: list[Member] = field(default_factory=list)  # after the last blob
    end: bytes = bundle.END

    @classmethod
    def read(cls, file: Path) -> Archive:
        with tarfile.open(file) as tar:
            contents = [(one.name, tar.extractfile(one)) for one in tar.getmembers()]
            read = [(name, opened.read() if opened else b"") for name, opened in contents]
        return cls(json.loads(read[0][1]), [Member(*one) for one in read[1:]])

    def write(self, file: Path) -> None:
        manifest = Member(bundle.MANIFEST, json.dumps(self.manifest).encode())
        members = [*self.front, manifest, *self.blobs, *self.back]
        file.write_bytes(b"".join(one.dumps() for one in members) + self.end)

    @property
    def pin(self) -> dict[str, object]:
        """The first pin of its lock."""
        lock = self.manifest["lock"]
        assert isinstance(lock, dict)
        pin: dict[str, object] = next(iter(lock["pins"].values()))
        return pin

    @property
    def listed(self) -> list[dict[str, object]]:
        """The blobs of its manifest."""
        listed = self.manifest["blobs"]
        assert isinstance(listed, list)
        return listed

    @property
    def files(self) -> dict[str, dict[str, object]]:
        """The files of its first pin."""
        files = self.pin["files"]
        assert isinstance(files, dict)
        return files


def names(file: Path) -> list[str]:
    """What an ordinary tar sees."""
    with tarfile.open(fileobj=io.BytesIO(file.read_bytes())) as tar:
        return tar.getnames()
