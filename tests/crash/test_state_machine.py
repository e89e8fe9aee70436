"""Any order of locking, reading, dying, damage, sweeping and trouble: a dictionary knows better."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.assemble import prepare_data
from proxy.config import Config
from proxy.errors import MirrorError
from proxy.hub.names import Digest, Pair
from proxy.mirror import cache as caches
from proxy.mirror import part as parts
from proxy.mirror.cache import BlobCache
from proxy.mirror.mirror import Mirror
from proxy.mirror.transfer import Tuning
from proxy.pins.lock import Entry
from proxy.pins.reload import Reloader
from proxy.store.local import LocalStore
from proxy.store.recency import Recency
from proxy.tasks import gc, lock
from tests.crash.gated import PIECE, Client, GatedHub
from tests.fakes.content import Content
from tests.fakes.world import File, lfs, regular

T = TypeVar("T")
PAIR = Pair("acme/m@main")
SIZES = {"config.json": 300, "small.bin": 10_000, "edge.bin": 65_537, "big.bin": 200_000}
PATHS = st.sampled_from(sorted(SIZES))
LONG = os.environ.get("CRASH") == "long"


class Machine(RuleBasedStateMachine):
    """The model is `locked`, `held` and `damaged`."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="hubpin-machine-"))
        self.data = self.folder / "data"
        (self.folder / "allowlist.yaml").write_text(f"allow:\n  - {PAIR}\n")
        self.hub = GatedHub()
        self.version = 0
        self.clients: list[Client] = []
        self.locked: dict[str, Entry] = {}
        self.lock_text = b""
        self.held: set[Digest] = set()  # must be served without an upstream
        self.damaged: set[Digest] = set()
        self.known: set[Digest] = set()  # small files that some lock has read
        self.full = False
        self._real_fallocate = os.posix_fallocate
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(os, "posix_fallocate", self._fallocate)
        self.patches.setattr(caches, "_REST_AFTER_BAD_S", 0.0)
        self.patches.setattr(parts, "SYNC_EVERY", 3 * PIECE)
        self._commit()
        self._open()
        self.update()

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        self._drop()
        self.patches.undo()
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- the parts of a mirror ---

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def _fallocate(self, fd: int, offset: int, length: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "full")
        self._real_fallocate(fd, offset, length)

    def _open(self) -> None:
        config = Config(
            data=self.data, allowlist=self.folder / "allowlist.yaml", keep_free=0, upstreams=()
        )
        prepare_data(config)
        store = LocalStore(self.data)
        recency = Recency(self.data / "index-v1")
        tuning = Tuning(
            batch=PIECE, flush_s=0.0, tick_s=0.01, backoff_s=0.001, tries=2, patience_s=1.0
        )

        async def make() -> BlobCache:
            return BlobCache(store, self.hub, data=self.data, recency=recency, tuning=tuning)

        cache = self._run(make())
        cache.recover()
        once = self._tree()
        cache.recover()
        assert self._tree() == once, "I5"
        reloader = Reloader(config.allowlist, config.lock)
        self.mirror = Mirror(config, reloader, cache, store, recency, self.hub, (self.hub,))

    def _drop(self) -> None:
        self.hub.open_gate()
        for client in self.clients:
            if client.task is not None:
                client.task.cancel()
                with suppress(asyncio.CancelledError, MirrorError):
                    self._run(_outcome(client.task))
                client.task = None
        self._run(self.mirror.cache.close())
        self.mirror.recency.close()

    def _tree(self) -> list[tuple[str, int]]:
        folders = [self.data / "blobs-v1", self.data / "spool"]
        files = [path for folder in folders for path in folder.rglob("*")]
        return sorted((str(path), path.stat().st_size) for path in [*files, self.data / "misled"]
                      if path.is_file())  # fmt: skip

    def _blob(self, digest: Digest) -> Path:
        return self.data / "blobs-v1" / "sha256" / digest.hex[:2] / digest.hex

    def _commit(self) -> None:
        self.version += 1
        files: dict[str, File | None] = {}
        for path, size in SIZES.items():
            if self.version == 1 or path in ("config.json", "edge.bin"):
                content = Content(f"{path} {self.version}", size)
                files[path] = regular(content) if path.endswith("json") else lfs(content)
        self.hub.world.repo("acme/m").commit(files)

    async def _read(self, client: Client) -> bool:
        """What resolve.py and a client of the Hub do together; True once the client is content."""
        entry, start = client.entry, len(client.got)
        if start <= self.mirror.cache.misled.limit(entry.digest):
            start = 0
        begun = False
        try:
            reader = await self.mirror.cache.open(entry, entry.size)
        except MirrorError:
            return False
        try:
            at = start
            while at < entry.size:
                ready = await reader.ready(at)
                piece = os.pread(reader.file.fileno(), ready - at, at)
                if not begun:
                    del client.got[start:]
                    begun = True
                client.got += piece
                at += len(piece)
        except MirrorError:
            return False
        finally:
            reader.close()
        assert len(client.got) == entry.size
        return True

    def _end(self, client: Client, *, content: bool) -> None:
        if content:
            got = hashlib.sha256(client.got).hexdigest()
            assert got == client.entry.digest.hex, "I4: WRONG BYTES ACCEPTED"
            self.held.add(client.entry.digest)
            self.damaged.discard(client.entry.digest)
            self.clients.remove(client)

    def _expects(self, entry: Entry) -> bool:
        fine = not (self.hub.down or self.hub.lies or self.full)
        return fine or (entry.digest in self.held and entry.digest not in self.damaged)

    # --- what happens ---

    @rule(path=PATHS)
    def get(self, path: str) -> None:
        self.hub.open_gate()
        self._settle()
        client = Client(self.locked[path])
        self.clients.append(client)
        sure = self._expects(client.entry)
        content = self._run(self._read(client))
        assert content or not sure, f"{path} is not served"
        self._end(client, content=content)

    @rule(path=PATHS, pieces=st.integers(0, 20))
    def begin_to_get(self, path: str, pieces: int) -> None:
        """The upstream stops after so many pieces, and the client waits."""
        self.hub.open_gate()
        self._settle()
        self.hub.close_gate(pieces)
        client = Client(self.locked[path])
        self.clients.append(client)
        self._run(self._begin(client))

    async def _begin(self, client: Client) -> None:
        client.task = asyncio.create_task(self._read(client))
        waiting = asyncio.create_task(self.hub.waiting.wait())
        await asyncio.wait([client.task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for _ in range(20):  # what came is shown
            await asyncio.sleep(0.001)

    def _settle(self, *, wait: bool = True) -> None:
        """Whoever waits gets an outcome; without `wait`, whoever has one already."""
        for client in list(self.clients):
            if client.task is not None and (wait or client.task.done()):
                content = self._run(_outcome(client.task))
                client.task = None
                self._end(client, content=content)

    @rule()
    def the_upstream_goes_on(self) -> None:
        self.hub.open_gate()
        self._settle()

    @rule(number=st.integers(0, 5))
    def resume(self, number: int) -> None:
        self.hub.open_gate()
        self._settle()
        if self.clients:
            client = self.clients[number % len(self.clients)]
            self._end(client, content=self._run(self._read(client)))

    @rule(path=PATHS, start=st.integers(0, 200_000), length=st.integers(1, 80_000))
    def get_range(self, path: str, start: int, length: int) -> None:
        entry = self.locked[path]
        start %= entry.size
        stop = min(entry.size, start + length)
        self.hub.open_gate()
        self._settle()
        sure = self._expects(entry)

        async def read() -> bytes | None:
            try:
                reader = await self.mirror.cache.open(entry, stop)
            except MirrorError:
                return None
            try:
                await reader.ready(start)
                return os.pread(reader.file.fileno(), stop - start, start)
            except MirrorError:
                return None
            finally:
                reader.close()

        got = self._run(read())
        assert got is not None or not sure
        if got is not None and stop < entry.size:
            assert got == self._content(entry).read(start, stop), "I4"

    def _content(self, entry: Entry) -> Content:
        for commit in self.hub.world.repo("acme/m").commits.values():
            file = commit.files[entry.path]
            if file.digest == entry.digest:
                assert isinstance(file.content, Content)
                return file.content
        raise KeyError(entry.path)

    @rule()
    def kill_and_restart(self) -> None:
        """What lies on the disk at this moment is all that is left."""
        self._settle(wait=False)
        copy = self.folder / "copy"
        shutil.copytree(self.data, copy, ignore=shutil.ignore_patterns("index-v1"))
        for path in copy.rglob("*"):
            status = (self.data / path.relative_to(copy)).stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        got = [bytes(client.got) for client in self.clients]
        self._drop()
        for client, had in zip(self.clients, got, strict=True):
            client.got = bytearray(had)
        shutil.rmtree(self.data)
        copy.rename(self.data)
        self._open()

    @rule()
    def restart(self) -> None:
        self._settle(wait=False)
        self._drop()
        self._open()

    @rule(path=PATHS)
    def corrupt(self, path: str) -> None:
        blob = self._blob(self.locked[path].digest)
        if blob.exists() and not self._busy():
            blob.chmod(0o600)
            with blob.open("r+b") as out:
                out.seek(100)
                out.write(b"!!!")
            self.damaged.add(self.locked[path].digest)

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        if not self._busy():
            self._blob(self.locked[path].digest).unlink(missing_ok=True)
            self.held.discard(self.locked[path].digest)
            self.damaged.discard(self.locked[path].digest)

    def _busy(self) -> bool:
        return any(client.task is not None for client in self.clients)

    @rule()
    def sweep(self) -> None:
        async def work() -> None:
            async for _ in gc.gc(self.mirror):
                pass

        self._run(work())
        self.held &= {entry.digest for entry in self.locked.values()}

    @rule()
    def move_tag(self) -> None:
        if self.version < 6:
            self._commit()

    @rule()
    def update(self) -> None:
        """`hubpin lock --update`: the only way to other bytes."""
        self.hub.open_gate()
        self._settle()

        async def work() -> bool:
            async def pause(_: float) -> None:
                await asyncio.sleep(0)

            done = False
            update = [PAIR] if self.locked else []
            async for event in lock.lock(self.mirror, update=update, pause=pause):
                done |= isinstance(event, lock.Locked)
            return done

        with contextlib.suppress(MirrorError):
            if self._run(work()):
                self.mirror.reloader.reload()
                self.lock_text = self.mirror.config.lock.read_bytes()
                files = self.mirror.catalog.snapshot(PAIR.repo, PAIR.revision).files
                self.locked = dict(files)
                for entry in self.locked.values():
                    if not entry.lfs and entry.digest not in self.known:
                        self.held.add(entry.digest)  # I2
                        self.known.add(entry.digest)
                assert set(self.locked) == set(SIZES)
                # The bytes that clients hold parts of may not be served any more.
                wanted = {entry.digest for entry in self.locked.values()}
                self.clients = [one for one in self.clients if one.entry.digest in wanted]

    @rule(down=st.booleans())
    def the_upstream_is(self, down: bool) -> None:
        self.hub.down = down

    @rule(lies=st.booleans())
    def the_upstream_lies(self, lies: bool) -> None:
        self.hub.lies = lies

    @rule(full=st.booleans())
    def the_disk_is(self, full: bool) -> None:
        self.full = full

    # --- what always holds ---

    @invariant()
    def names_are_hashes(self) -> None:
        if not hasattr(self, "data"):
            return
        there = set()
        for path in (self.data / "blobs-v1").rglob("*"):
            if path.is_file():
                digest = Digest.of_hex(path.name)
                there.add(digest)
                if digest not in self.damaged:
                    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, "I1"
        assert self.held - self.damaged <= there, "I2, I3, I7"

    @invariant()
    def the_lock_moves_only_when_told(self) -> None:
        if hasattr(self, "lock_text") and self.lock_text:
            assert self.mirror.config.lock.read_bytes() == self.lock_text, "I11"


async def _outcome(task: asyncio.Task[bool]) -> bool:
    return await task


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=120 if LONG else 12,
    stateful_step_count=60 if LONG else 30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
