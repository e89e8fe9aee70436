"""What a device does with datasets; agent.py calls these by name.

It runs with the client's own Python, so it imports nothing of ours.
"""

from __future__ import annotations

import importlib
from typing import Any


def rows(repo: str, **options: object) -> dict[str, object]:
    """How many rows the one split has, and the first and the last of them."""
    loaded = _load(repo, **options)["train"]
    return {"count": len(loaded), "first": loaded[0], "last": loaded[len(loaded) - 1]}


def streamed(repo: str, skip: int = 0, **options: object) -> dict[str, object]:
    """One row of a stream, after so many others."""
    stream = _load(repo, **options, streaming=True)["train"]
    row: dict[str, object] = next(iter(stream.skip(skip) if skip else stream))
    return row


def write_parquet(file: str, count: int, group: int) -> str:
    """Rows `{"id": 0, "text": …}` in groups; the text does not compress."""
    arrow = importlib.import_module("pyarrow")
    random = importlib.import_module("random").Random(0)
    table = arrow.table(
        {"id": list(range(count)), "text": [random.randbytes(512).hex() for _ in range(count)]}
    )
    importlib.import_module("pyarrow.parquet").write_table(table, file, row_group_size=group)
    return file


def _load(repo: str, **options: object) -> Any:
    return importlib.import_module("datasets").load_dataset(repo, **options)
