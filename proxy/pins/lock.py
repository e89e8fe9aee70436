"""allowlist.lock: the commits and bytes that the allowlist was resolved to.

    {
     "version": 1,
     "pins": {
      "org/model@main": {
       "commit": "…40 hex…",
       "date": "2024-01-01T00:00:00.000Z",        when the commit was made, as the upstream says
       "exclude": [], "include": [],              the filters in force when it was locked,
      "denied": [".bin"],                        and `formats:`, if there were any
       "fingerprint": "sha256:…",                 of the pair's SHA256SUMS text
       "kind": "branches",                        RefKind: what the revision is
       "license": "apache-2.0",
       "upstream": "https://huggingface.co",      who said so
       "info": {…},                               the Hub's repository object, one line
       "files": {
        "config.json": {"git_oid": "…", "lfs": false, "sha256": "…", "size": 612},
        …
       }
      }
     }
    }

Sorted, one file a line, so that a diff can be reviewed and the same state gives the same bytes.
Fields that we do not know are kept: an older tool must not destroy a newer one's work.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

import msgspec

from proxy.errors import ConfigError, InvalidName
from proxy.hub.names import CommitSha, Digest, GitOid, Pair, RepoId, RepoPath, Revision
from proxy.hub.wire import Json, RefKind, hub_date

VERSION = 1
_PIN_KEYS = (
    "commit", "date", "denied", "exclude", "files", "fingerprint", "include", "info", "kind",
    "license", "upstream",
)  # fmt: skip
_FILE_KEYS = frozenset({"git_oid", "lfs", "sha256", "size"})


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One file of one locked commit: where it is, and which bytes it has.

    A lock holds a hundred thousand: they are made in a third of a dataclass's time, and the garbage
    collector does not look at them.
    """

    repo: RepoId
    commit: CommitSha
    path: RepoPath
    size: int  # bytes
    digest: Digest
    git_oid: GitOid  # of what git stores: the pointer for LFS
    lfs: bool
    extra: Json | None = None  # fields of a newer tool

    def __hash__(self) -> int:
        return hash((self.repo, self.commit, self.path, self.digest))

    @property
    def etag(self) -> str:
        """What the Hub answers as ETag, unquoted."""
        return self.digest.hex if self.lfs else self.git_oid


@dataclass(frozen=True, slots=True)
class Pin:
    """A pair frozen at a commit, with every file that it admits."""

    repo: RepoId
    revision: Revision
    commit: CommitSha
    date: str
    kind: RefKind
    upstream: str
    license: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    info: Json
    files: Mapping[str, Entry]
    denied: tuple[str, ...] = ()  # endings of files that are not in it
    extra: Json = field(default_factory=dict)  # fields of a newer tool
    fingerprint: Digest = field(init=False, compare=False)  # of its files

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self.files.values()))

    @property
    def pair(self) -> Pair:
        return Pair.of(self.repo, self.revision)


@dataclass(frozen=True, slots=True)
class Lock:
    """What a machine froze: pair → pin."""

    pins: Mapping[Pair, Pin] = field(default_factory=dict)
    extra: Json = field(default_factory=dict)

    def with_pins(self, changed: Iterable[Pin], *, dropped: Iterable[Pair] = ()) -> Lock:
        pins = {**self.pins, **{pin.pair: pin for pin in changed}}
        for pair in dropped:
            pins.pop(pair, None)
        return Lock(pins, self.extra)

    def digests(self) -> set[Digest]:
        """Every blob that some pin needs."""
        return {entry.digest for pin in self.pins.values() for entry in pin.files.values()}


def sums(files: Iterable[Entry]) -> str:
    """The SHA256SUMS text: `sha256sum -c` accepts it, and its own sha256 is the fingerprint.

    Sorted by path in UTF-8 byte order. Paths hold no control characters or backslashes
    (`RepoPath`), so coreutils' escaping never applies.
    """
    # Code points have the order of their UTF-8 bytes.
    rows = sorted(files, key=attrgetter("path"))
    return "".join([f"{entry.digest.hex}  {entry.path}\n" for entry in rows])


def fingerprint(files: Iterable[Entry]) -> Digest:
    return Digest.of_hex(hashlib.sha256(sums(files).encode()).hexdigest())


# --- reading -------------------------------------------------------------------------------------


def load(file: Path) -> Lock:
    """The lock in `file`; an empty one if there is no such file. Raises: ConfigError."""
    content = bytes_of(file)
    return Lock() if content is None else loads(content, file)


def bytes_of(file: Path) -> bytes | None:
    """What is in `file`, to be parsed; None if there is no such file. Raises: ConfigError."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ConfigError(file, None, f"cannot be read: {e.strerror or e}") from e


@contextmanager
def nothing_to_collect() -> Iterator[None]:
    """For code that makes very many objects and no cycles: looking for some takes a third of it."""
    active = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if active:
            gc.enable()


def loads(content: bytes, file: Path | str = "allowlist.lock") -> Lock:
    """Raises: ConfigError, naming the pair and the file at fault."""
    with nothing_to_collect():
        return _loads(content, file)


def _loads(content: bytes, file: Path | str) -> Lock:
    try:
        raw = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise ConfigError(
            file, None, f"not JSON ({e}); restore it from version control, or run hubpin lock"
        ) from e
    if not isinstance(raw, dict) or not isinstance(raw.get("pins"), dict):
        raise ConfigError(file, None, "not a lock file: it has no pins")
    if raw.get("version") != VERSION:
        raise ConfigError(
            file, None, f"format version {raw.get('version')!r}; this hubpin reads {VERSION}"
        )
    pins: dict[Pair, Pin] = {}
    for text, value in raw["pins"].items():
        try:
            pair = Pair(text)
            pins[pair] = _pin(pair, value)
        except (InvalidName, ValueError, KeyError) as e:
            problem = f"no field {e}" if isinstance(e, KeyError) else str(e)
            raise ConfigError(file, None, f"pin {text!a}: {problem}") from e
    extra = {key: value for key, value in raw.items() if key not in ("version", "pins")}
    return Lock(pins, extra)


def _pin(pair: Pair, raw: object) -> Pin:
    if not isinstance(raw, dict):
        raise ValueError("it is not an object")
    repo, commit = pair.repo, CommitSha(_str(raw["commit"]))
    if pair.revision.commit not in (None, commit):
        raise ValueError(f"it is locked to another commit, {commit}")
    files = raw["files"]
    info = raw["info"]
    if not isinstance(files, dict) or not isinstance(info, dict):
        raise ValueError("files and info must be objects")
    entries: dict[str, Entry] = {}
    for path, value in files.items():
        entry = _entry(repo, commit, path, value)
        entries[entry.path] = entry
    pin = Pin(
        repo=repo,
        revision=pair.revision,
        commit=commit,
        date=hub_date(raw["date"]),
        kind=RefKind(raw["kind"]),
        upstream=_str(raw["upstream"]),
        license=_str(raw["license"]),
        include=_strs(raw["include"]),
        exclude=_strs(raw["exclude"]),
        denied=_strs(raw.get("denied", [])),
        info=info,
        files=entries,
        extra={key: value for key, value in raw.items() if key not in _PIN_KEYS},
    )
    said = raw["fingerprint"]
    if said != pin.fingerprint:
        raise ValueError(
            f"its files do not add up to its fingerprint {said}; somebody edited it by hand"
        )
    return pin


def _entry(repo: RepoId, commit: CommitSha, path: str, raw: object) -> Entry:
    try:
        if not isinstance(raw, dict):
            raise ValueError("it is not an object")
        size, lfs = raw["size"], raw["lfs"]
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"size {size!r} is not a number of bytes")
        if not isinstance(lfs, bool):
            raise ValueError(f"lfs {lfs!r} is not true or false")
        return Entry(
            repo, commit, RepoPath(path), size,
            Digest.of_hex(_str(raw["sha256"])), GitOid(_str(raw["git_oid"])), lfs,
            {k: v for k, v in raw.items() if k not in _FILE_KEYS} if len(raw) > 4 else None,
        )  # fmt: skip
    except KeyError as e:
        raise ValueError(f"file {path!a} has no field {e}") from e
    except (ValueError, InvalidName) as e:
        raise ValueError(f"file {path!a}: {e}") from e


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _strs(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list")
    return tuple(_str(item) for item in value)


# --- writing -------------------------------------------------------------------------------------


def dumps(lock: Lock) -> bytes:
    """The lock as text. The same lock gives the same bytes."""
    return "\n".join(_lines(lock)).encode() + b"\n"


def _lines(lock: Lock) -> Iterator[str]:
    yield "{"
    for key in sorted(lock.extra):
        yield f" {_json(key)}: {_json(lock.extra[key])},"
    yield ' "pins": {'
    pins = sorted(lock.pins.values(), key=lambda pin: pin.pair.encode())
    for number, pin in enumerate(pins, 1):
        yield f"  {_json(pin.pair)}: {{"
        yield from _pin_lines(pin)
        yield "  }" + ("," if number < len(pins) else "")
    yield " },"
    yield f' "version": {VERSION}'
    yield "}"


def _pin_lines(pin: Pin) -> Iterator[str]:
    values: Json = {
        **pin.extra,
        "commit": pin.commit,
        "date": pin.date,
        "exclude": list(pin.exclude),
        "fingerprint": pin.fingerprint,
        "include": list(pin.include),
        "info": pin.info,
        "kind": pin.kind.value,
        "license": pin.license,
        "upstream": pin.upstream,
    }
    if pin.denied:  # a lock that an older tool wrote stays as it is
        values["denied"] = list(pin.denied)
    for key in sorted(values):
        yield f"   {_json(key)}: {_json(values[key])},"
    yield '   "files": {'
    files = sorted(pin.files.values(), key=lambda entry: entry.path.encode())
    for number, entry in enumerate(files, 1):
        value: Json = {
            **(entry.extra or {}),
            "git_oid": entry.git_oid,
            "lfs": entry.lfs,
            "sha256": entry.digest.hex,
            "size": entry.size,
        }
        yield f"    {_json(entry.path)}: {_json(value)}" + ("," if number < len(files) else "")
    yield "   }"


_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


# --- comparing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delta:
    """What changes from one set of files to another, by path."""

    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    changed: tuple[tuple[Entry, Entry], ...]
    bytes_to_move: int  # of blobs that the new side needs and the old side does not have


def diff(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> Delta:
    """What changes from `old` to `new`; a file that was only renamed moves no bytes."""
    held = {entry.digest for entry in old.values()}
    missing = {e.digest: e.size for e in new.values() if e.digest not in held}
    return Delta(
        added=tuple(new[path] for path in sorted(new.keys() - old.keys())),
        removed=tuple(old[path] for path in sorted(old.keys() - new.keys())),
        changed=tuple(
            (old[path], new[path])
            for path in sorted(old.keys() & new.keys())
            if old[path].digest != new[path].digest
        ),
        bytes_to_move=sum(missing.values()),
    )
