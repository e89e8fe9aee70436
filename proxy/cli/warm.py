"""hubpin warm"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli.console import DONE, FAILED, Json, Pairs
from proxy.cli.progress import Meter, Throttle, duration
from proxy.cli.render import event_json
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.hub.names import Pair
from proxy.tasks import warm as tasks
from proxy.upstream.paced import Pace, Window
from proxy.yamlfile import parse_size


def command(  # noqa: PLR0913, PLR0917  # one argument for each option
    ctx: typer.Context,
    pairs: Pairs = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Files at a time.")] = 4,
    limit_rate: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Bytes a second at most, all files together: 20MB."),
    ] = "",
    window: Annotated[
        str,
        typer.Option(
            metavar="HH:MM-HH:MM", help="Fetch at these hours only, local time: 22:00-06:00."
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Download every file of the locked pairs, so that they can be served without an upstream.

    What is held is not fetched again; a download that was cut goes on where it stopped.
    """

    async def work() -> int:
        chosen = console.pairs(pairs)
        pace = _pace(limit_rate, window)
        return await _warm(console.session(ctx).config(), chosen, pace, jobs=jobs, json=json)

    console.run(work)


def _pace(rate: str, window: str) -> Pace:
    try:
        limit = parse_size(rate) if rate else 0
    except ValueError as e:
        raise ConfigError("--limit-rate", None, str(e)) from e
    if rate and not limit:
        raise ConfigError("--limit-rate", None, "nothing would ever come")
    try:
        return Pace(limit, Window.parse(window) if window else None)
    except ValueError as e:
        raise ConfigError("--window", None, str(e)) from e


async def _warm(
    config: Config, pairs: list[Pair] | None, pace: Pace, *, jobs: int, json: bool
) -> int:
    finished = tasks.Finished(0, 0, 0)
    throttle = Throttle()
    async with open_mirror(config, pace=pace) as mirror:
        with Meter("warming", silent=json) as meter:
            async with aclosing(tasks.warm(mirror, pairs, jobs=jobs)) as events:
                async for event in events:
                    if isinstance(event, tasks.Finished):
                        finished = event
                    if json:
                        if not isinstance(event, tasks.Progress) or throttle():
                            console.emit(event_json(event))
                    else:
                        show(event, meter)
    if not json:
        console.data(
            f"{finished.fetched_files} files fetched ({console.size(finished.fetched_bytes)})"
            + (f", {finished.failed} failed" if finished.failed else "")
        )
    return FAILED if finished.failed else DONE


def show(event: tasks.Event, meter: Meter) -> None:
    match event:
        case tasks.Noticed():
            meter.say(f"notice for {event.pair}: {event.notice}", "yellow")
        case tasks.Planned():
            meter.say(
                f"{event.files} files, {console.size(event.bytes)}; "
                f"{event.held_files} of them are held ({console.size(event.held_bytes)}), "
                f"{console.size(event.bytes - event.held_bytes)} to fetch; "
                f"the disk has room for {console.size(event.free)}"
            )
            meter.plan(event.files, event.bytes, event.held_files, event.held_bytes)
        case tasks.Waiting():
            meter.say(f"waiting for the window: it opens in {duration(event.wait_s)}", "dim")
        case tasks.Progress() | tasks.Fetched():
            meter.update(event.done_files, event.done_bytes)
        case tasks.Failed():
            meter.say(f"hubpin: {event.entry.repo} {event.entry.path}: {event.error}", "bold red")
        case tasks.Finished():
            pass
