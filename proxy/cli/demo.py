"""hubpin demo"""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from proxy.cli import console, env
from proxy.cli.console import DONE, Json
from proxy.cli.progress import duration
from proxy.cli.render import event_json
from proxy.tasks import demo as tasks
from proxy.tasks import demo_stage

_SHOWN = 12  # lines of a command's output


def command(
    upstream: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Mirror this Hub, e.g. https://huggingface.co (needs the internet)."
        ),
    ] = "",
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Play in this new folder and leave everything there."),
    ] = None,
    json: Json = False,
) -> None:
    """See the whole story on this machine, with a real model and the real client, in a minute.

    Without --upstream it needs no network. It leaves nothing running, however it ends.
    """

    async def work() -> int:
        settings = env.settings("http://127.0.0.1")
        async with aclosing(tasks.demo(settings, upstream=upstream, keep=keep)) as events:
            async for event in events:
                if json:
                    console.emit(event_json(event))
                else:
                    _show(event)
        return DONE

    console.run(work)


def _show(event: tasks.Event) -> None:
    match event:
        case tasks.Step():
            console.data()
            console.data(f"{event.number}. {event.title}", "bold cyan")
        case tasks.Note():
            console.data(f"   {event.text}")
        case tasks.Shown():
            console.data(f"   {event.name}:")
            for line in event.text.splitlines():
                console.data(f"     | {line}")
        case demo_stage.Running():
            console.data(f"   {event.who}$ {event.command}", "bold")
        case demo_stage.Ran():
            _show_run(event)
        case tasks.Verified():
            console.data(
                f"   ✓ all {event.files} files on {event.device} have the locked sha256 "
                f"({console.size(event.bytes)} in {duration(event.took_s)})",
                "bold green",
            )
        case tasks.Skipped():
            console.data(f"   skipped: {event.reason}", "yellow")
        case tasks.Finished():
            _show_end(event)


def _show_run(event: demo_stage.Ran) -> None:
    lines = [line for line in event.output if line.strip()]
    for line in lines[:_SHOWN]:
        console.data(f"     | {line}", "dim")
    if len(lines) > _SHOWN:
        console.data(f"     | … {len(lines) - _SHOWN} more lines", "dim")
    if event.status:
        console.data(f"     (exit status {event.status})", "yellow")


def _show_end(event: tasks.Finished) -> None:
    console.data()
    table = Table(box=None, pad_edge=False)
    for title in ("device", "files", "bytes", "time", "fingerprint of what it has"):
        table.add_column(title, no_wrap=True)
    for one in event.devices:
        table.add_row(
            one.device, f"{one.files}", f"{one.bytes:,}", duration(one.took_s),
            one.fingerprint.removeprefix("sha256:")[:16],
        )  # fmt: skip
    Console(highlight=False, width=100).print(table)
    console.data()
    console.data(
        f"Done in {duration(event.took_s)}. Every device has the same bytes, whatever the upstream "
        "did. Nothing is left running.",
        "bold green",
    )
    if event.kept is not None:
        console.data(f"Everything is in {event.kept}; look at mirror/allowlist.lock.")
    else:
        console.data(
            "For a mirror of your own: hubpin init, hubpin add repo@revision, hubpin start."
        )
