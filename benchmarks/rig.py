"""What every measurement stands on: folders, servers that end, rounds in random order, a table."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import servers
from benchmarks.servers import Server
from benchmarks.stage import url
from proxy.pins.lock import Entry

RESULTS = Path(__file__).parent / "results"
Sample = dict[str, float]
Samples = Mapping[str, Sequence[Sample]]  # by subject; the same index is the same round


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the median and the greatest of the rounds."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))

    def text(self, unit: str = "") -> str:
        return f"{_short(self.median)}{unit} ({_short(self.least)}–{_short(self.most)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, what it should be, and whether it is."""

    figure: str
    value: str
    target: str = ""
    verdict: str = ""


@dataclass(slots=True)
class Table:
    name: str
    about: str
    rows: list[Row] = field(default_factory=list)
    samples: dict[str, Samples] = field(default_factory=dict)  # for the JSON
    seconds: float = 0.0

    def note(self, figure: str, value: str) -> None:
        """A figure without a target."""
        self.rows.append(Row(figure, value))

    def least(
        self, figure: str, spread: Spread, target: float, *, unit: str = "", band: float = 1.0
    ) -> None:
        """A figure that should be at least this; `band` ≤ 1 is how far the A/A twin fell."""
        near = spread.median >= target * band
        verdict = "met" if spread.median >= target else _short_of(near=near)
        self.rows.append(Row(figure, spread.text(unit), f"≥ {_short(target)}{unit}", verdict))

    def most(
        self, figure: str, spread: Spread, target: float, *, unit: str = "", band: float = 1.0
    ) -> None:
        """A figure that should be at most this; `band` ≥ 1 is how far the A/A twin rose."""
        near = spread.median <= target * band
        verdict = "met" if spread.median <= target else _short_of(near=near)
        self.rows.append(Row(figure, spread.text(unit), f"≤ {_short(target)}{unit}", verdict))

    def print(self) -> None:
        print(f"\n### {self.name}: {self.about} ({self.seconds:.0f} s)\n")
        print("| figure | measured: median (min–max) | target | |\n|---|---|---|---|")
        for row in self.rows:
            print(f"| {row.figure} | {row.value} | {row.target} | {row.verdict} |", flush=True)

    def write(self, *, quick: bool) -> None:
        """Quick runs do not replace what a full one found."""
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}{'-quick' * quick}.json").write_text(
            json.dumps({"machine": machine(), **asdict(self)}, indent=1)
        )


def _short_of(*, near: bool) -> str:
    return "inconclusive" if near else "**missed**"


class Rig:
    """One module's run: folders that go, servers that end."""

    def __init__(
        self, folder: Path, memory: Path, stack: ExitStack, *, quick: bool, most: int
    ) -> None:
        self.folder = folder  # on a disk
        self.memory = memory  # where writing costs no disk, if there is such a place
        self.quick = quick
        self._most = most  # rounds
        self._stack = stack

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def rounds(self, full: int) -> int:
        """How many, where a full run has so many."""
        return 1 if self.quick else min(full, self._most)

    def keep(self, server: Server) -> Server:
        """Ends with the run."""
        self._stack.callback(server.stop)
        return server

    def room(self, name: str, *, memory: bool = False) -> Path:
        folder = (self.memory if memory else self.folder) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def cgroup(self, name: str, *, read_rate: int) -> Path | None:
        """A group whose processes read so many bytes a second from the disk; None if we may not."""
        base = Path("/sys/fs/cgroup/blkio")
        group = base / f"hubpin-{name}-{os.getpid()}"
        device = os.stat(self.folder).st_dev
        try:
            whole = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
            if (whole / "partition").exists():
                whole = whole.resolve().parent
            group.mkdir()
            self._stack.callback(_forget, group)
            (group / "blkio.throttle.read_bps_device").write_text(
                f"{(whole / 'dev').read_text().strip()} {read_rate}"
            )
        except OSError:
            return None
        return group


def _forget(group: Path) -> None:
    for _ in range(50):  # until what was in it is gone
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return


@contextmanager
def rig(*, quick: bool, most: int = 100) -> Iterator[Rig]:
    shared = Path("/dev/shm")
    with ExitStack() as stack:
        folders = []
        for base in (None, shared if os.access(shared, os.W_OK) else None):
            folder = Path(tempfile.mkdtemp(prefix="hubpin-bench-", dir=base))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folders.append(folder)
        disk, memory = folders
        yield Rig(disk, memory, stack, quick=quick, most=most)


def rounds(count: int, subjects: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Every subject once per round, in another order each time."""
    found: dict[str, list[Sample]] = {name: [] for name in subjects}
    for _ in range(count):
        for name in random.sample(list(subjects), len(subjects)):
            found[name].append(subjects[name]())
    return found


def values(samples: Samples, subject: str, key: str) -> list[float]:
    return [one[key] for one in samples[subject]]


def spread(samples: Samples, subject: str, key: str, *, scale: float = 1.0) -> Spread:
    return Spread.of([one * scale for one in values(samples, subject, key)])


def ratio(samples: Samples, subject: str, base: str, key: str) -> Spread:
    """Round by round: what disturbs a round disturbs both."""
    pairs = zip(values(samples, subject, key), values(samples, base, key), strict=True)
    return Spread.of([one / max(other, 1e-9) for one, other in pairs])


def check(server: Server, entry: Entry) -> None:
    """Ask for all of a file, and hash it. Raises: RuntimeError."""
    got = hashlib.sha256(servers.fetch(server.url + url(entry))).hexdigest()
    if got != entry.digest.hex:
        raise RuntimeError(f"{server.name} sends wrong bytes of {entry.path}")


def machine() -> dict[str, object]:
    info = Path("/proc/cpuinfo").read_text()
    names = [line.split(":")[1].strip() for line in info.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processors": os.cpu_count(),
        "model": names[0] if names else "",
        "memory_gb": round(memory / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(one, 1) for one in os.getloadavg()],
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def main(measure: Callable[[Rig], Table], arguments: Sequence[str] | None = None) -> Table:
    """Run one module; `--quick` for a smaller run, `--rounds=3` for at most three rounds."""
    given = sys.argv[1:] if arguments is None else arguments
    quick = "--quick" in given
    limits = [int(one.partition("=")[2]) for one in given if one.startswith("--rounds=")]
    began = time.monotonic()
    with rig(quick=quick, most=limits[0] if limits else 100) as made:
        table = measure(made)
    table.seconds = time.monotonic() - began
    table.write(quick=quick)
    table.print()
    return table
