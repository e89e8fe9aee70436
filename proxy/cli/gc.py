"""hubpin gc"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli.console import DONE, Json
from proxy.cli.render import event_json
from proxy.config import Config
from proxy.tasks import gc as tasks


def command(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go; delete nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Delete files that no locked pair needs, and unfinished downloads of such files."""

    async def work() -> int:
        return await _gc(console.session(ctx).config(), dry_run=dry_run, json=json)

    console.run(work)


async def _gc(config: Config, *, dry_run: bool, json: bool) -> int:
    async with (
        open_mirror(config) as mirror,
        aclosing(tasks.gc(mirror, dry_run=dry_run)) as events,
    ):
        async for event in events:
            if json:
                console.emit(event_json(event))
            else:
                _show(event, "would delete" if dry_run else "deleted")
    return DONE


def _show(event: tasks.Event, did: str) -> None:
    match event:
        case tasks.Swept():
            console.data(f"{did} {event.digest}  {event.size:,} bytes")
        case tasks.SweptPart():
            console.data(f"{did} unfinished {event.name}  {event.size:,} bytes")
        case tasks.Finished():
            console.data(
                f"{did} {event.blobs} blobs and {event.parts} unfinished downloads, "
                f"{console.size(event.freed)}; {event.kept_blobs} blobs stay "
                f"({console.size(event.kept_bytes)})"
            )
