"""How a process of ours is started: with this package, whatever else lies around."""

from __future__ import annotations

import sys
from pathlib import Path

import proxy

# -m looks into the working directory first, where anything called `proxy` may lie; -P does not.
_RUN = (
    "import runpy, sys; root, module = sys.argv[1:3]; del sys.argv[1:3]; sys.path.append(root); "
    "runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def command(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of this very package in a process of its own."""
    root = Path(proxy.__file__).parent.parent
    return [sys.executable, "-P", "-c", _RUN, str(root), module, *map(str, arguments)]
