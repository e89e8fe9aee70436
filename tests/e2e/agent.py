"""What runs on a device: calls of Python libraries, one JSON object a line in, one a line out.

in     {"call": "snapshot_download", "with": {"repo_id": "acme/tiny"}}
       {"call": "with_datasets.rows", "with": {"repo": "acme/csvdata"}}
out    {"value": "/…/snapshots/…", "seconds": 0.2}
       {"error": "RevisionNotFoundError", "kinds": ["HfHubHTTPError", …], "text": "…", …}

It is run by path with the client's own Python, so it imports nothing of ours.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from types import GeneratorType
from typing import Any


def main() -> None:
    hub = importlib.import_module("huggingface_hub")
    for line in sys.stdin:
        print(json.dumps(answer(hub, json.loads(line)), default=_plain), flush=True)


def answer(hub: Any, call: dict[str, Any]) -> dict[str, object]:
    began = time.monotonic()
    said: dict[str, object]
    try:
        value = find(hub, call["call"])(**call["with"])
        said = {"value": list(value) if isinstance(value, GeneratorType) else value}
    except Exception as e:
        said = {
            "error": type(e).__name__,
            "kinds": [kind.__name__ for kind in type(e).__mro__],
            "text": str(e),
            "trace": traceback.format_exc(),
        }
    return {**said, "seconds": time.monotonic() - began}


def find(hub: Any, name: str) -> Any:
    """A function of the library, else a method of its API; `with_x.f` is f of with_x.py here."""
    module, dot, function = name.partition(".")
    if dot:
        return getattr(importlib.import_module(module), function)
    return getattr(hub, name, None) or getattr(hub.HfApi(), name)


def _plain(value: object) -> object:
    return getattr(value, "__dict__", None) or str(value)


if __name__ == "__main__":
    main()
