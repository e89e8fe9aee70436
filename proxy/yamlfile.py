"""YAML that an operator wrote, read strictly: every scalar is the string that was written.

YAML's own guesses turn `no` into False, `0123456` into 42798 and `1.10` into 1.1, and its loaders
take duplicate keys without a word. So we read parser events and build the tree ourselves; aliases,
tags, duplicate keys and second documents are errors with their line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from proxy.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?", re.IGNORECASE | re.ASCII)
_NOTHING = ("null", "Null", "NULL")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


@dataclass(slots=True)
class Node:
    """A value with the line it stands on (its key's, if it has one): text, a list, or a mapping."""

    line: int
    text: str | None = None
    items: list[Node] | None = None
    fields: dict[str, Node] | None = None
    origin: str = ""  # where it was written, if not in the file at hand
    key: str | None = field(default=None, repr=False)  # while a mapping is built: the key read last
    key_line: int = field(default=0, repr=False)

    @property
    def kind(self) -> str:
        if self.text is not None:
            return "a text"
        return "a list" if self.items is not None else "a mapping"


def read(file: Path) -> Node:
    """The document in `file`. Raises: ConfigError (also when it cannot be read)."""
    return parse(text_of(file), file)


def text_of(file: Path) -> str:
    """What is in `file`, to be parsed. Raises: ConfigError."""
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(file, None, f"{size:,} bytes; more than {MAX_BYTES:,} are not read")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ConfigError(file, None, f"not UTF-8 at byte {e.start}") from e
    except OSError as e:
        raise ConfigError(file, None, f"cannot be read: {e.strerror or e}") from e


def parse(text: str, file: Path | str) -> Node:
    """The one document in `text`; an empty text is an empty mapping. Raises: ConfigError."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError(file, None, f"more than {MAX_BYTES:,} bytes")
    try:
        return _build(yaml.parse(text, Loader=_Loader), file)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        problem = " ".join(part for part in (e.context, e.problem) if part)
        raise ConfigError(file, mark.line + 1 if mark else None, f"not YAML: {problem}") from e
    except (yaml.YAMLError, ValueError) as e:
        raise ConfigError(file, None, f"not YAML: {' '.join(str(e).split())}") from e


def _build(events: Iterable[yaml.Event], file: Path | str) -> Node:
    root: Node | None = None
    open_nodes: list[Node] = []
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 1
        match event:
            case yaml.AliasEvent():
                raise ConfigError(file, line, "aliases (*name) are not allowed")
            case yaml.DocumentStartEvent() if root is not None:
                raise ConfigError(file, line, "a second document (---) is not allowed")
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                open_nodes.pop()
                continue
            case yaml.ScalarEvent():
                node = Node(line, text=event.value)
            case yaml.SequenceStartEvent():
                node = Node(line, items=[])
            case yaml.MappingStartEvent():
                node = Node(line, fields={})
            case _:
                continue
        if event.anchor is not None:
            raise ConfigError(file, line, "anchors (&name) are not allowed")
        if event.tag is not None:
            raise ConfigError(file, line, f"tags ({event.tag}) are not allowed")
        if open_nodes:
            _attach(open_nodes[-1], node, file)
        else:
            root = node
        if node.text is None:
            open_nodes.append(node)
            if len(open_nodes) > MAX_DEPTH:
                raise ConfigError(file, line, f"nested deeper than {MAX_DEPTH} levels")
    if root is None or root.text == "":
        return Node(1, fields={})
    return root


def _attach(parent: Node, node: Node, file: Path | str) -> None:
    if parent.items is not None:
        parent.items.append(node)
        return
    assert parent.fields is not None
    if parent.key is None:
        if node.text is None:
            raise ConfigError(file, node.line, "a key must be a plain text")
        if node.text in parent.fields:
            first = parent.fields[node.text].line
            problem = f"duplicate key {node.text!r} (first on line {first})"
            raise ConfigError(file, node.line, problem)
        parent.key, parent.key_line = node.text, node.line
    else:
        node.line = parent.key_line
        parent.fields[parent.key] = node
        parent.key = None


class Fields:
    """A mapping read key by key; `done` complains about keys that nobody asked for."""

    def __init__(self, node: Node, file: Path | str, what: str) -> None:
        if node.fields is None:
            raise ConfigError(file, node.line, f"{what} must be a mapping, not {node.kind}")
        self._fields = node.fields
        self._file = file
        self._what = what
        self._known: list[str] = []
        self.line = node.line

    def error(self, key: str, problem: str) -> ConfigError:
        node = self._fields.get(key)
        if node is None:
            return ConfigError(self._file, self.line, f"{key}: {problem}")
        return ConfigError(node.origin or self._file, node.line, f"{key}: {problem}")

    def node(self, key: str) -> Node | None:
        self._known.append(key)
        return self._fields.get(key)

    def text(self, key: str, default: str) -> str:
        node = self.node(key)
        if node is None:
            return default
        if node.text is None:
            raise self.error(key, f"must be a text, not {node.kind}")
        return node.text

    def given(self, key: str, default: str) -> str:
        """A text that is not one of the words by which YAML means none."""
        text = self.text(key, default)
        if text in _NOTHING:
            raise self.error(key, "is nothing; leave the key out")
        return text

    def shown(self, key: str, default: str) -> str:
        """A text to be shown, on one line."""
        text = self.given(key, default)
        if text == "~":
            raise self.error(key, "is nothing; leave the key out")
        if len(text) > 300 or not text.isprintable():
            raise self.error(key, "must be one line of at most 300 characters")
        return text

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of texts; None if the key is not there."""
        node = self.node(key)
        if node is None:
            return None
        if node.items is None:
            raise self.error(key, f"must be a list, not {node.kind}")
        for item in node.items:
            if item.text is None:
                raise ConfigError(self._file, item.line, f"{key}: an item must be a text")
        return tuple(item.text or "" for item in node.items)

    def flag(self, key: str, *, default: bool) -> bool:
        text = self.text(key, "true" if default else "false")
        if text not in ("true", "false"):
            raise self.error(key, f"must be true or false, not {text!r}")
        return text == "true"

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(key, default)
        if text not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}, not {text!r}")
        return text

    def number(self, key: str, default: int, *, least: int = 0) -> int:
        text = self.text(key, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) >= least):
            raise self.error(key, f"must be a whole number of at least {least}, not {text[:40]!r}")
        return int(text)

    def size(self, key: str, default: int, *, least: int = 0) -> int:
        """Bytes, written `512MiB`, `10GiB`, `1.5 GB` or `1048576`."""
        node = self.node(key)
        if node is None:
            return default
        try:
            size = parse_size(node.text or "")
        except ValueError as e:
            raise self.error(key, str(e)) from e
        if size < least:
            raise self.error(key, f"must be at least {least:,} bytes, not {size:,}")
        return size

    def duration(self, key: str, default: float) -> float:
        """Seconds, written `500ms`, `30s`, `5m`, `12h` or `30d`."""
        node = self.node(key)
        if node is None:
            return default
        try:
            return parse_duration(node.text or "")
        except ValueError as e:
            raise self.error(key, str(e)) from e

    def period(self, key: str, default: float, *, least: float) -> float:
        """A duration after which something is done again; 0: it is never done."""
        seconds = self.duration(key, default)
        if 0 < seconds < least:
            raise self.error(key, f"must be at least {least:g} s, or 0 for never")
        return seconds

    def done(self) -> None:
        """Raises: ConfigError, if the mapping has a key that was never asked for."""
        for key, node in self._fields.items():
            if key not in self._known:
                known = ", ".join(self._known)
                raise ConfigError(
                    self._file, node.line, f"{self._what} has no key {key!r}; it knows: {known}"
                )


def parse_size(text: str) -> int:
    """Bytes from `512MiB`, `10GiB`, `1.5 GB`, `1048576`. Raises: ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > 30:
        raise ValueError(f"{text[:40]!r} is not a size; write for example 10GiB or 500MB")
    number, letter, binary = match.groups()
    exponent = " KMGT".index(letter.upper()) if letter else 0
    return int(float(number) * (1024 if binary else 1000) ** exponent)


def parse_duration(text: str) -> float:
    """Seconds from `500ms`, `30s`, `5m`, `12h`, `30d`. Raises: ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or len(text) > 30:
        raise ValueError(f"{text[:40]!r} is not a duration; write for example 30s or 5m")
    return float(match[1]) * _DURATION_S[match[2]]
