"""hubpin verify"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli import warm as warming
from proxy.cli.console import DONE, FAILED, Json, Pairs
from proxy.cli.progress import Meter, Throttle
from proxy.cli.render import event_json
from proxy.config import Config
from proxy.hub.names import Pair
from proxy.tasks import verify as tasks
from proxy.tasks import warm


def command(
    ctx: typer.Context,
    pairs: Pairs = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Fetch again what is bad, and what is missing of pairs partly held."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Hash every held file again and compare it with the lock.

    A wrong one is put into quarantine at once and is not served. Exits 1 if one is found and not
    repaired.
    """

    async def work() -> int:
        chosen = console.pairs(pairs)
        return await _verify(console.session(ctx).config(), chosen, repair=repair, json=json)

    console.run(work)


async def _verify(config: Config, pairs: list[Pair] | None, *, repair: bool, json: bool) -> int:
    finished = tasks.Finished(0, 0, 0, 0, 0)
    throttle = Throttle()
    async with open_mirror(config) as mirror:
        with Meter("verifying", silent=json) as meter:
            async with aclosing(tasks.verify(mirror, pairs, repair=repair)) as events:
                async for event in events:
                    if isinstance(event, tasks.Finished):
                        finished = event
                    if json:
                        often = isinstance(event, tasks.Right | warm.Progress)
                        if not often or throttle():
                            console.emit(event_json(event))
                    else:
                        _show(event, meter)
    if not json:
        console.data(
            f"{finished.right} files right, {finished.bad} bad, {finished.missing} not held"
            + (f", {finished.repaired} fetched again" if repair else "")
        )
        if finished.bad and not repair:
            console.say("hubpin: fetch the bad files again with: hubpin verify --repair", "red")
    bad = finished.failed if repair else finished.bad
    return FAILED if bad else DONE


def _show(event: tasks.Event, meter: Meter) -> None:
    match event:
        case tasks.Planned():
            meter.say(f"hashing {event.files} files, {console.size(event.bytes)}")
            meter.plan(event.files, event.bytes)
        case tasks.Right():
            meter.update(event.done_files, event.done_bytes)
        case tasks.Bad():
            meter.update(event.done_files, event.done_bytes)
            meter.say(
                f"hubpin: {event.entry.repo} {event.entry.path} is not what the lock says; "
                "it is in quarantine and is not served",
                "bold red",
            )
        case tasks.Finished():
            pass
        case _:
            warming.show(event, meter)
