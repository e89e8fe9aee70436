"""hubpin diff"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli.console import DONE, Json
from proxy.cli.render import change_lines, delta_lines, value_json
from proxy.config import Config
from proxy.hub.names import Pair
from proxy.tasks import diff as tasks

_UPSTREAM = "upstream"


def command(
    ctx: typer.Context,
    old: Annotated[str, typer.Argument(metavar="A", help="A locked pair, repo@revision.")],
    new: Annotated[
        str, typer.Argument(metavar="B", help="Another locked pair, or the word upstream.")
    ] = _UPSTREAM,
    json: Json = False,
) -> None:
    """What changes from one locked pair to another, or to what the upstream has now.

    Files, licence, keys of config.json, and tensors of safetensors (by their headers).

    With `upstream` it shows what `hubpin lock --update A` would do. Changes nothing.
    """

    async def work() -> int:
        other = None if new == _UPSTREAM else Pair(new)
        return await _diff(console.session(ctx).config(), Pair(old), other, json=json)

    console.run(work)


async def _diff(config: Config, old: Pair, new: Pair | None, *, json: bool) -> int:
    async with open_mirror(config) as mirror:
        async for event in tasks.diff(mirror, old, new):
            if isinstance(event, tasks.Asking):
                if not json:
                    console.say(f"asking what {event.pair} means upstream …", "dim")
            elif json:
                console.emit(value_json(event))
            else:
                _show(event)
    return DONE


def _show(event: tasks.Compared) -> None:
    for mark, side in (("---", event.old), ("+++", event.new)):
        console.data(
            f"{mark} {side.name}  {side.commit}  {side.date}  {side.files} files  "
            f"{console.size(side.bytes)}"
        )
    if event.old.license != event.new.license:
        old, new = event.old.license or "none", event.new.license or "none"
        console.data(f"  licence {old} → {new}", "bold yellow")
    for line in delta_lines(event.delta):
        console.data(line)
    for title, changes in (("config", event.contents.config), ("tensors", event.contents.tensors)):
        if changes:
            added = sum(one.old is None for one in changes)
            removed = sum(one.new is None for one in changes)
            console.data(
                f"{title}: {added} added, {removed} removed, "
                f"{len(changes) - added - removed} changed"
            )
            for line in change_lines(changes):
                console.data(line)
    for unread in event.contents.unread:
        console.warn(f"{unread.path} was not looked into: {unread.reason}")
