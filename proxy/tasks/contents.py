"""What changes inside of files: keys of config.json, and tensors of safetensors.

Only the beginning of a safetensors file is read: eight bytes with the length of a JSON header, and
that header (huggingface.co/docs/safetensors, Format). Held blobs are read from disk, others by
range from the upstream. What an upstream shows here was not verified, is only looked at, and is
kept nowhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from proxy.errors import MirrorError
from proxy.mirror.mirror import Mirror
from proxy.pins.lock import Delta, Entry

_TENSORS = ".safetensors"
_FILES_AT_ONCE = 8
_CONFIG_SIZE = 1 << 20  # bytes; a larger config.json is not looked into
_HEADER_SIZE = 32 << 20  # bytes of a safetensors header; real ones have some hundred kB
_LENGTH = 8  # bytes in front of the header
_FIRST = 128 << 10  # bytes asked for at first: most headers are shorter
_SHOWN = 200  # characters of a value


@dataclass(frozen=True, slots=True)
class Changed:
    """A key of a config, or a tensor; None on the side where it is not."""

    path: str  # of the config; of the folder, for tensors: they move between shards
    name: str  # nested keys are joined with dots
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be looked into."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What changes in files that change."""

    config: tuple[Changed, ...] = ()
    tensors: tuple[Changed, ...] = ()
    unread: tuple[Unread, ...] = ()


_Found = dict[tuple[str, str], str]  # (path or folder, name) → value


async def compare(mirror: Mirror, delta: Delta) -> Contents:
    """Look into the files that a delta names. What cannot be read is named, and fails nothing."""
    old = [*delta.removed, *(old for old, _ in delta.changed)]
    new = [*delta.added, *(new for _, new in delta.changed)]
    unread: dict[str, Unread] = {}
    gate = asyncio.Semaphore(_FILES_AT_ONCE)

    async def side(files: Sequence[Entry], kind: str) -> _Found:
        chosen = [one for one in files if _kind(one) == kind]
        parts = await asyncio.gather(*(look(one, kind) for one in chosen))
        return {key: value for part in parts for key, value in part.items()}

    async def look(file: Entry, kind: str) -> _Found:
        async with gate:
            try:
                return await (_config(mirror, file) if kind == "config" else _header(mirror, file))
            except (MirrorError, ValueError, OSError, RecursionError) as e:
                unread[file.path] = Unread(file.path, str(e) or type(e).__name__)
                return {}

    configs = await side(old, "config"), await side(new, "config")
    tensors = await side(old, "tensors"), await side(new, "tensors")
    # Of a file that one side did not show, everything would look added or removed.
    blind = {_place(path) for path in unread if path.endswith(_TENSORS)}
    return Contents(
        tuple(one for one in _changes(*configs) if one.path not in unread),
        tuple(one for one in _changes(*tensors) if one.path not in blind),
        tuple(unread[path] for path in sorted(unread)),
    )


def _kind(file: Entry) -> str:
    if file.path.rpartition("/")[2] == "config.json":
        return "config"
    return "tensors" if file.path.endswith(_TENSORS) else ""


def _place(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _changes(old: _Found, new: _Found) -> Iterator[Changed]:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield Changed(*key, _short(before), _short(after))


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= _SHOWN else f"{value[:_SHOWN]}…"


async def _config(mirror: Mirror, file: Entry) -> _Found:
    """Raises: MirrorError, ValueError."""
    if file.size > _CONFIG_SIZE:
        raise ValueError(f"{file.size:,} bytes are many for a config")
    read = msgspec.json.decode(await _read(mirror, file, 0, file.size))
    return {(file.path, name): value for name, value in _leaves(read, "")}


def _leaves(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and (value or not name):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, msgspec.json.encode(value).decode()


async def _header(mirror: Mirror, file: Entry) -> _Found:
    """Raises: MirrorError, ValueError."""
    first = await _read(mirror, file, 0, min(_FIRST, file.size))
    size = int.from_bytes(first[:_LENGTH], "little")
    stop = _LENGTH + size
    if len(first) < _LENGTH or not 2 <= size <= min(_HEADER_SIZE, file.size - _LENGTH):
        raise ValueError("it does not begin like safetensors")
    if stop > len(first):
        first += await _read(mirror, file, len(first), stop)
    read = msgspec.json.decode(first[_LENGTH:stop])
    if not isinstance(read, dict):
        raise ValueError("its header is no object")
    return {
        (_place(file.path), str(name)): _tensor(one)
        for name, one in read.items()
        if name != "__metadata__"
    }


def _tensor(raw: object) -> str:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("shape"), list):
        raise ValueError("its header does not describe tensors")
    return f"{raw.get('dtype')} {raw['shape']}"


async def _read(mirror: Mirror, file: Entry, start: int, stop: int) -> bytes:
    """Exactly [start, stop). Raises: MirrorError, ValueError (it ended early)."""
    held = await _read_held(mirror, file, start, stop)
    if held is not None:
        return held
    got = bytearray()
    async with aclosing(mirror.upstream.fetch(file, start, stop)) as body:
        async for piece in body:
            got += piece
    if len(got) != stop - start:
        raise ValueError("it ended early")
    return bytes(got)


async def _read_held(mirror: Mirror, file: Entry, start: int, stop: int) -> bytes | None:
    try:
        opened = mirror.store.open(file.digest)
    except MirrorError:  # altered on disk: `verify` says so, and the upstream can show it
        return None
    if opened is None:
        return None
    with opened:
        got = await asyncio.to_thread(os.pread, opened.fileno(), stop - start, start)
    return got if len(got) == stop - start else None
