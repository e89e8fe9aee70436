"""hubpin init"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from proxy.cli import console
from proxy.cli.console import DONE, Json
from proxy.errors import StoreError

_FILES = ("hubpin.yaml", "allowlist.yaml")


def command(json: Json = False) -> None:
    """Write a commented hubpin.yaml and allowlist.yaml here. Never overwrites a file."""

    async def work() -> int:
        written = [name for name in _FILES if _write(Path(name))]
        kept = [name for name in _FILES if name not in written]
        if json:
            console.emit({"written": written, "kept": kept})
            return DONE
        for name in written:
            console.data(f"wrote {name}")
        for name in kept:
            console.data(f"kept {name}, which is there already")
        console.say("next: hubpin add repo@revision, hubpin lock, hubpin start")
        return DONE

    console.run(work)


def _write(file: Path) -> bool:
    """False if there is such a file."""
    text = (files("proxy.cli") / "templates" / file.name).read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        return False
    except OSError as e:
        raise StoreError(f"cannot write {file}: {e.strerror or e}") from e
    return True
