"""hubpin status"""

from __future__ import annotations

import asyncio

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli.console import DONE, Json
from proxy.config import Config
from proxy.hub.wire import Json as Object
from proxy.tasks import blobs, instance

_WIDE = 2000  # columns; no row is as long


def command(ctx: typer.Context, json: Json = False) -> None:
    """Which pairs are locked to what, how much of each is held, and whether a server runs."""

    async def work() -> int:
        config = console.session(ctx).config()
        said = await asyncio.to_thread(instance.status, config)
        server = said if said is not None and instance.serves(config, said) else None
        found = await _found(config, server)
        if json:
            console.emit(found)
        else:
            _show(config, found)
        return DONE

    console.run(work)


async def _found(config: Config, server: Object | None) -> Object:
    """The pairs are read from the files: they are the truth, with a server or without."""
    async with open_mirror(config) as mirror:
        held = await blobs.count_held(mirror)
        unlocked = [str(one.pair) for one in mirror.catalog.unlocked()]
    record = instance.read(config)
    return {
        "server": server and {
            key: server.get(key)
            for key in ("version", "pid", "ready", "config", "started", "catalog_error")
        },
        "hanging_pid": record.pid if server is None and record and record.alive() else None,
        "listen": str(config.listen),
        "data": str(config.data),
        "pairs": [
            {
                "pair": one.snapshot.pair,
                "commit": one.snapshot.commit,
                "fingerprint": one.snapshot.fingerprint,
                "license": one.snapshot.pin.license,
                "files": len(one.snapshot.files),
                "bytes": one.snapshot.size,
                "held_files": one.held_files,
                "held_bytes": one.held_bytes,
            }
            for one in held
        ],
        "unlocked": unlocked,
    }  # fmt: skip


def _show(config: Config, found: Object) -> None:
    server, hanging = found["server"], found["hanging_pid"]
    if isinstance(server, dict):
        state = "ready" if server.get("ready") else "not ready"
        console.data(f"server   {config.listen.local_url}, pid {server['pid']}, {state}", "green")
        if server.get("catalog_error"):
            console.warn(f"the server keeps its previous catalog: {server['catalog_error']}")
    elif hanging:
        console.data(f"server   pid {hanging} runs and does not answer at {config.listen}", "red")
    else:
        console.data("server   not running; hubpin start runs it", "yellow")
    console.data(f"data     {config.data}")
    table = Table(box=None, pad_edge=False)
    for title in ("pair", "commit", "fingerprint", "licence"):
        table.add_column(title, overflow="fold")
    for title in ("held files", "held"):
        table.add_column(title, justify="right", no_wrap=True)
    pairs, unlocked = found["pairs"], found["unlocked"]
    assert isinstance(pairs, list)
    assert isinstance(unlocked, list)
    for one in pairs:
        full = one["held_files"] == one["files"]
        table.add_row(
            Text(one["pair"]),
            one["commit"][:12],
            one["fingerprint"].removeprefix("sha256:")[:16],
            Text(console.clean(one["license"] or "none")),
            f"{one['held_files']}/{one['files']}",
            f"{console.size(one['held_bytes'])} of {console.size(one['bytes'])}",
            style="" if full else "yellow",
        )
    for pair in unlocked:
        table.add_row(Text(pair), "not locked", "run: hubpin lock", "", "", "", style="red")
    console.data()
    if table.row_count:
        out = Console(highlight=False)
        if not out.is_terminal:  # a program reads it, or a file: one line a pair, however long
            out = Console(highlight=False, width=_WIDE)
        out.print(table)
    else:
        console.data("The allowlist is empty. hubpin add repo@revision adds to it.")
