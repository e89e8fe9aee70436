"""Events of tasks as JSON and as text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from proxy.errors import MirrorError
from proxy.hub.wire import Json
from proxy.pins.lock import Delta, Entry, Pin
from proxy.tasks.contents import Changed

_SHOWN = 20  # lines of a list before it is cut


def event_json(event: object) -> Json:
    """`{"event": "name_of_its_class", …its fields}`."""
    assert dataclasses.is_dataclass(event)
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    fields = {one.name: value_json(getattr(event, one.name)) for one in dataclasses.fields(event)}
    return {"event": name, **fields}


def value_json(value: object) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case MirrorError():
            return {"kind": type(value).__name__, "message": str(value)}
        case Pin():
            return {
                "commit": value.commit,
                "date": value.date,
                "upstream": value.upstream,
                "license": value.license,
                "fingerprint": value.fingerprint,
                "files": len(value.files),
                "bytes": sum(entry.size for entry in value.files.values()),
            }
        case Entry():
            return {
                "repo": value.repo, "path": value.path, "size": value.size, "etag": value.etag
            }  # fmt: skip
        case Delta():
            return {
                "added": [value_json(one) for one in value.added],
                "removed": [value_json(one) for one in value.removed],
                "changed": [
                    {"path": new.path, "old": value_json(old), "new": value_json(new)}
                    for old, new in value.changed
                ],
                "bytes_to_move": value.bytes_to_move,
            }
        case Mapping():
            return {str(key): value_json(item) for key, item in value.items()}
        case list() | tuple():
            return [value_json(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {
                one.name: value_json(getattr(value, one.name)) for one in dataclasses.fields(value)
            }
        case _:
            return str(value)


def delta_lines(delta: Delta) -> list[str]:
    """`+ path`, `- path`, `~ path`, and how much has to be moved."""
    rows = [
        *(f"  + {one.path} ({one.size:,} bytes)" for one in delta.added),
        *(f"  - {one.path} ({one.size:,} bytes)" for one in delta.removed),
        *(f"  ~ {new.path} ({_change(old, new)})" for old, new in delta.changed),
    ]
    if not rows:
        return ["  no file changes"]
    cut = rows[:_SHOWN]
    if len(rows) > _SHOWN:
        cut.append(f"  … and {len(rows) - _SHOWN} more")
    return [
        *cut,
        f"  {len(delta.added)} added, {len(delta.removed)} removed, {len(delta.changed)} changed; "
        f"{delta.bytes_to_move:,} bytes to move",
    ]


def change_lines(changes: Sequence[Changed]) -> list[str]:
    """A table of what changes inside of files: `+`, `-` or `~`, where, what, from and to."""
    rows = [
        (
            "+" if one.old is None else "-" if one.new is None else "~",
            one.path,
            one.name,
            " → ".join(value for value in (one.old, one.new) if value is not None),
        )
        for one in changes[:_SHOWN]
    ]
    path, name = (max(len(row[at]) for row in rows) for at in (1, 2))
    lines = [f"  {row[0]} {row[1]:<{path}}  {row[2]:<{name}}  {row[3]}" for row in rows]
    if len(changes) > _SHOWN:
        lines.append(f"  … and {len(changes) - _SHOWN} more (--json has all)")
    return lines


def _change(old: Entry, new: Entry) -> str:
    if old.size == new.size:
        return f"{new.size:,} bytes as before, but other ones"
    return f"{old.size:,} → {new.size:,} bytes"
