"""A model card's front matter: what a README.md says about its repository.

---
license: apache-2.0
pipeline_tag: text-generation
---
# Prose
"""

from __future__ import annotations

import math
from datetime import date

import yaml

from proxy.hub.wire import Json

MAX_SIZE = 1 << 20  # bytes of a README that are looked at
_MAX_DEPTH = 20


def parse(readme: bytes) -> Json:
    """The front matter as JSON values; nothing, if there is none or it cannot be read."""
    text = readme[:MAX_SIZE].decode("utf-8", "replace").lstrip("\ufeff").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return {}
    front, end, _ = text[4:].partition("\n---")
    if not end:
        return {}
    try:
        if not _is_tame(front):
            return {}
        loaded: object = yaml.load(front, Loader=yaml.CSafeLoader)
        plain = _plain(loaded)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
        # PyYAML lets ValueError out for dates and numbers that do not exist.
        return {}
    return plain if isinstance(plain, dict) else {}


def tags(card: Json) -> list[str]:
    """The tags that the Hub would derive from a card."""
    own = card.get("tags")
    found = [one for one in own if isinstance(one, str)] if isinstance(own, list) else []
    for key in ("library_name", "pipeline_tag"):
        if isinstance(named := card.get(key), str):
            found.append(named)
    if isinstance(named := card.get("license"), str):
        found.append(f"license:{named}")
    return list(dict.fromkeys(found))


def _is_tame(text: str) -> bool:
    """No aliases (they multiply), not deep (the constructor recurses)."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            return False
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            return False
    return True


def _plain(value: object) -> object:
    """The same value in JSON's types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, date):  # a datetime is one, too
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
