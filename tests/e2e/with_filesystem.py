"""What a device does with HfFileSystem; agent.py calls these by name.

It runs with the client's own Python, so it imports nothing of ours.
"""

from __future__ import annotations

import importlib
from typing import Any


def read(path: str, start: int, length: int) -> str:
    """Bytes from the middle of a file, as hex digits."""
    with _files().open(path, "rb", block_size=64 * 1024) as opened:
        opened.seek(start)
        piece: bytes = opened.read(length)
    return piece.hex()


def read_text(path: str) -> str:
    return str(_files().read_text(path, encoding="utf-8"))


def glob(pattern: str) -> list[str]:
    return sorted(str(path) for path in _files().glob(pattern))


def ls(path: str) -> list[str]:
    return sorted(str(path) for path in _files().ls(path, detail=False))


def info(path: str) -> dict[str, object]:
    """Size and kind."""
    said = _files().info(path)
    return {"size": said["size"], "type": said["type"]}


def _files() -> Any:
    return importlib.import_module("huggingface_hub").HfFileSystem()
