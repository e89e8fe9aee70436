"""add and remove: edits of allowlist.yaml that leave every other line as a human wrote it.

A YAML library writes the whole file anew, and drops the comment above the entry that follows a
removed one. So lines are put in and taken out, and the outcome is read back before it is kept: an
edit that would change anything else is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from proxy import yamlfile
from proxy.errors import ConfigError
from proxy.hub.names import Pair
from proxy.pins import allowlist
from proxy.pins.allowlist import Allowed, Allowlist
from proxy.tasks import files

_KEY = re.compile(r"""^(["']?)allow\1[ \t]*:""", re.MULTILINE)
_NOTHING = re.compile(r"[ \t]*\[\s*\]")
_PLAIN = re.compile(r"[A-Za-z0-9._/][A-Za-z0-9._/@+\-]*")
_EMPTY = "allow:\n"


@dataclass(frozen=True, slots=True)
class Edited:
    """The allowlist on disk names the pair, or does not; `changed` if it did otherwise before."""

    pair: Pair
    changed: bool


async def add(file: Path, wanted: Allowed) -> Edited:
    """Allow a pair. One that is listed already stays as it is. Raises: ConfigError, StoreError."""

    def change(text: str, old: Allowlist) -> str | None:
        if old.get(wanted.pair) is not None:
            return None
        new = _with(text, wanted, file)
        _check(new, replace(old, allowed=(*old.allowed, wanted)), file)
        return new

    return Edited(wanted.pair, await asyncio.to_thread(_change, file, change))


async def remove(file: Path, pair: Pair) -> Edited:
    """Take a pair off the list; what is locked and held stays. Raises: ConfigError, StoreError."""

    def change(text: str, old: Allowlist) -> str | None:
        gone = old.get(pair)
        if gone is None:
            return None
        new = _without(text, old.allowed.index(gone), file)
        _check(new, replace(old, allowed=tuple(one for one in old.allowed if one != gone)), file)
        return new

    return Edited(pair, await asyncio.to_thread(_change, file, change))


def _change(file: Path, change: Callable[[str, Allowlist], str | None]) -> bool:
    with files.exclusive(file.parent):
        try:
            text = file.read_bytes().decode()
        except FileNotFoundError:
            text = _EMPTY
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(file, None, f"cannot be read: {e}") from e
        new = change(text, allowlist.loads(text, file))
        if new is None:
            return False
        files.replace(file, new.encode())
        return True


def _check(text: str, expected: Allowlist, file: Path) -> None:
    """Raises: ConfigError, if `text` is not what the edit was to make."""
    got = allowlist.loads(text, file)
    if got.denied != expected.denied or _bare(got) != _bare(expected):
        raise ConfigError(
            file, None, "its layout is too unusual to be edited safely; do it by hand"
        )


def _bare(held: Allowlist) -> list[Allowed]:
    """The entries, without what is not written in them."""
    return [replace(one, line=0, denied=()) for one in held.allowed]


# --- text ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    """The lines [start, stop) of an entry, and how far its dash is indented."""

    start: int
    stop: int
    indent: int


def _with(text: str, wanted: Allowed, file: Path) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += newline
    items = _items(text, file)
    if items:
        at, indent = items[-1].stop, items[0].indent
    else:
        lines, at = _room_for_first(lines, newline)
        indent = 2
    entry = [f"{' ' * indent}{line}{newline}" for line in _entry(wanted)]
    return "".join([*lines[:at], *entry, *lines[at:]])


def _without(text: str, index: int, file: Path) -> str:
    lines = text.splitlines(keepends=True)
    item = _items(text, file)[index]
    return "".join([*lines[: item.start], *lines[item.stop :]])


def _room_for_first(lines: list[str], newline: str) -> tuple[list[str], int]:
    """The lines with an `allow:` that holds nothing, and where its first entry goes."""
    text = "".join(lines)
    key = _KEY.search(text)
    if key is None:
        return [*lines, f"allow:{newline}"], len(lines) + 1
    after = _NOTHING.match(text, key.end())
    if after is not None:
        text = text[: key.end()] + text[after.end() :]
    return text.splitlines(keepends=True), text.count("\n", 0, key.end()) + 1


def _items(text: str, file: Path) -> list[_Item]:
    """Every entry, in order. Raises: ConfigError, if they are not one below the other."""
    fields = yamlfile.parse(text, file).fields or {}
    nodes = fields["allow"].items if "allow" in fields else None
    if not nodes:
        return []
    lines = text.splitlines()
    starts = [_dash(lines, node.line - 1, file) for node in nodes]
    items = []
    for number, start in enumerate(starts):
        indent = _indent(lines[start])
        last = number + 1 == len(starts)
        stop = _end(lines, start, indent) if last else starts[number + 1]
        # Comments above the next entry belong to that one; comments deeper in to this one.
        while stop > start + 1 and _is_between(lines[stop - 1], indent):
            stop -= 1
        items.append(_Item(start, stop, indent))
    return items


def _dash(lines: list[str], line: int, file: Path) -> int:
    """The line where the entry begins whose first word is on `line`."""
    at = line
    while at > 0 and not lines[at].lstrip().startswith("-"):
        at -= 1
    if not lines[at].lstrip().startswith("-"):
        raise ConfigError(
            file, line + 1, "the entries are written in [brackets]; write one a line, with a dash"
        )
    return at


def _end(lines: list[str], start: int, indent: int) -> int:
    """Where the last entry ends: at the next key of the file, or with the file."""
    for at in range(start + 1, len(lines)):
        if _indent(lines[at]) <= indent and not _is_between(lines[at], indent):
            return at
    return len(lines)


def _is_between(line: str, indent: int) -> bool:
    word = line.strip()
    return not word or word == "..." or (word.startswith("#") and _indent(line) <= indent)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _entry(wanted: Allowed) -> list[str]:
    plain = replace(wanted, line=0, denied=()) == Allowed(wanted.repo, wanted.revision, 0)
    if plain:
        return [f"- {_scalar(wanted.pair)}"]
    rows = [f"- repo: {_scalar(wanted.repo)}", f"  revision: {_scalar(wanted.revision)}"]
    for key, values in (
        ("serve_as", wanted.serve_as or ()),
        ("aliases", wanted.aliases),
        ("include", wanted.include),
        ("exclude", wanted.exclude),
    ):
        if values:
            rows.append(f"  {key}: [{', '.join(_scalar(value) for value in values)}]")
    if wanted.notice:
        rows.append(f"  notice: {_scalar(wanted.notice)}")
    if wanted.share_lan:
        rows.append("  share: lan")
    if wanted.keep:
        rows.append("  keep: true")
    if wanted.warm:
        rows.append("  warm: true")
    return rows


def _scalar(text: str) -> str:
    """A YAML text; JSON's quotes are YAML's double quotes (YAML 1.2, §7.3.1)."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
