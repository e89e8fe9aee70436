"""P03: SIGKILL at random moments under load, again and again.

    python -m tests.crash.campaign --rounds 500      (make crash N=500)

A round: some blobs are gone, the Hub is slow or lies now and then, clients load whole files and
ranges, and the mirror is killed. Whatever a client had completely is served again without the
Hub, every broken download is completed to the right bytes, and little is fetched twice.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.crash.mirror import Mortal
from tests.crash.zygote import Zygote
from tests.fakes.content import Content, digest
from tests.fakes.control import HubControl
from tests.fakes.hub_process import HubProcess
from tests.fakes.settings import Settings
from tests.fakes.world import lfs, regular
from tests.faults.client import RIGHT, Download, Verdict, ask

REPO = "acme/model"
SIZES = {
    "config.json": 700, "tiny.bin": 5_000, "just-below.bin": 64 << 10, "just-above.bin": 65_537,
    "b.bin": 300_000, "c.bin": 1_200_000, "d.bin": 4 << 20, "e.bin": 9_000_001,
}  # fmt: skip
HUGE = "huge.bin"  # in some rounds: what of it is fetched twice?
HUGE_SIZE = 96 << 20
TWICE_AT_MOST = 64 << 20
_CLIENTS = 10
_PATIENCE_S = 90.0


class Violation(Exception):
    """Something happened that must never happen."""


class Campaign:
    """One mirror on one directory, and the rounds that it lives through."""

    def __init__(self, folder: Path, zygote: Zygote, hub: HubControl, seed: int) -> None:
        self.hub = hub
        self.random = random.Random(seed)
        self.count: Counter[str] = Counter()
        self.contents = {path: Content(f"{seed} {path}", size) for path, size in SIZES.items()}
        self.contents[HUGE] = Content(f"{seed} huge", HUGE_SIZE)
        hub.commit(
            REPO,
            {
                path: regular(content) if path.endswith(".json") else lfs(content)
                for path, content in self.contents.items()
            },
        )
        self.mirror = Mortal(
            folder, zygote, upstream=hub.url, allow=(f"{REPO}@main",),
            settings={"fetcher": "true" if seed % 2 else "false"},  # each worker its own way
        )  # fmt: skip
        status, said = self.mirror.run("lock")
        if status != 0:
            raise RuntimeError(said)

    def round(self, number: int) -> None:
        """Raises: Violation."""
        try:
            self._round()
        except (AssertionError, Violation, TimeoutError) as e:
            raise Violation(f"round {number}: {e}\n{self.mirror.log[-4000:]}") from e
        self.count["rounds"] += 1

    def _round(self) -> None:
        hub, mirror, pick = self.hub, self.mirror, self.random
        hub.heal()
        hub.reset()
        huge = pick.random() < 0.12
        self._forget_some(huge)
        hub.set(bandwidth=pick.choice([3e6, 20e6, None]) if not huge else 400e6)
        if pick.random() < 0.4:
            hub.fault(pick.choice(["U08", "U09", "U15", "U12"]), path=pick.choice(list(SIZES)))
        paths = [pick.choice(list(SIZES)) for _ in range(_CLIENTS)] + [HUGE] * huge
        downloads = [(path, Download("", self.contents[path])) for path in paths]
        _check(mirror.start(), "it does not start")
        stop = threading.Event()
        delay_s = pick.uniform(0.1, 0.5) if huge else pick.choice([0.02, 0.1, 0.4]) * pick.random()
        with ThreadPoolExecutor(len(downloads) + 2) as pool:
            clients = [pool.submit(self._load, path, one, stop) for path, one in downloads]
            clients += [pool.submit(self._ranges, pick.random(), stop) for _ in range(2)]
            time.sleep(delay_s)
            mirror.kill()
            stop.set()
            for client in clients:
                client.result()
        mirror.check_blobs()
        self._after(downloads)
        if huge:
            sent = sum(seen.sent for seen in hub.requests(path=HUGE))
            _check(sent <= HUGE_SIZE + TWICE_AT_MOST, f"I12: {sent - HUGE_SIZE} bytes came twice")
            self.count["most bytes of 96 MiB that came twice"] = max(
                self.count["most bytes of 96 MiB that came twice"], sent - HUGE_SIZE
            )

    def _forget_some(self, huge: bool) -> None:
        for path, content in self.contents.items():
            if self.random.random() < 0.6 or (huge and path == HUGE):
                self.mirror.blob(digest(content)).unlink(missing_ok=True)

    def _load(self, path: str, download: Download, stop: threading.Event) -> None:
        while not stop.is_set() and not download.complete:
            self._attempt(path, download)

    def _attempt(self, path: str, download: Download) -> Verdict:
        download.url = self.mirror.file_url(REPO, path)
        resumed = bool(download.have)
        verdict = download.attempt()
        self.count["requests"] += 1
        self.count["resumed"] += resumed and download.answers[-1].status in (200, 206)
        if verdict in (Verdict.WRONG, Verdict.HANG):
            raise Violation(f"{path}: {verdict}: {download.answers[-1].head}")
        return verdict

    def _ranges(self, seed: float, stop: threading.Event) -> None:
        pick = random.Random(seed)
        while not stop.is_set():
            path = pick.choice(list(SIZES))
            size = SIZES[path]
            first = pick.randrange(size)
            last = min(size - 1, first + pick.choice([0, 1000, 100_000]))
            got = ask(self.mirror.file_url(REPO, path), headers={"Range": f"bytes={first}-{last}"})
            want = self.contents[path].read(first, last + 1)
            whole = self.contents[path].read(0, size) if got.status == 200 else want
            self.count["requests"] += 1
            if got.verdict(whole) in (Verdict.WRONG, Verdict.HANG):
                raise Violation(f"{path}: range {first}-{last}: {got.head}")

    def _after(self, downloads: list[tuple[str, Download]]) -> None:
        hub, mirror = self.hub, self.mirror
        hub.heal()
        hub.refuse()
        _check(mirror.start(), "it does not start again")
        for path, download in downloads:
            if download.complete:
                got = mirror.get(REPO, path)
                _check(got.verdict(download.want) is RIGHT, f"I9: {path}: {got.head}")
                self.count["served again without the hub"] += 1
        hub.listen()
        hub.set(bandwidth=None)
        end = time.monotonic() + _PATIENCE_S
        for path, download in downloads:
            while not download.complete:
                if self._attempt(path, download) is Verdict.RESET:
                    raise Violation(f"{path}: reset")
                _check(time.monotonic() < end, f"{path} is not complete in time")
        left = [name for name in mirror.spool() if name.endswith(".tmp")]
        _check(not left, f"left in the spool: {left}")
        mirror.kill()
        mirror.check_blobs()
        _check("Traceback" not in mirror.log, "a traceback in the log")


def _check(right: bool, problem: str) -> None:
    if not right:
        raise Violation(problem)


@contextmanager
def campaign(seed: int) -> Iterator[Campaign]:
    with (
        tempfile.TemporaryDirectory(prefix="hubpin-crash-") as folder,
        HubProcess(Settings(world="empty")) as hub,
        Zygote() as zygote,
    ):
        yield Campaign(Path(folder) / "m", zygote, hub, seed)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.crash.campaign", description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--seconds", type=float, default=0.0, help="end after this long, if given")
    chosen = parser.parse_args(arguments)
    print(f"{chosen.rounds} rounds, seed {chosen.seed}", flush=True)
    rounds, count, began = itertools.count(1), Counter[str](), time.monotonic()
    violations: list[str] = []
    door = threading.Lock()

    def work(worker: int) -> None:
        with campaign(chosen.seed + worker) as one:
            while (number := next(rounds)) <= chosen.rounds:
                elapsed = time.monotonic() - began
                if chosen.seconds and elapsed > chosen.seconds:
                    break
                try:
                    one.round(number)
                except Violation as e:
                    with door:
                        violations.append(str(e))
                        print(e, flush=True)
                    return
                if number % 10 == 0:
                    print(f"{number} rounds, {elapsed:.0f} s, {len(violations)} violations")
                    sys.stdout.flush()
            with door:
                for name, value in one.count.items():
                    most = name.startswith("most")
                    count[name] = max(count[name], value) if most else count[name] + value

    with ThreadPoolExecutor(chosen.workers) as pool:
        list(pool.map(work, range(chosen.workers)))
    for name, value in sorted(count.items()):
        print(f"{name}: {value:,}")
    print(f"{len(violations)} violations in {time.monotonic() - began:.0f} s")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
