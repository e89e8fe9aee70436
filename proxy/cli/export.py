"""hubpin export"""

from __future__ import annotations

import sys
from contextlib import aclosing
from io import FileIO
from pathlib import Path
from typing import Annotated

import typer

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli import warm as warming
from proxy.cli.console import DONE, Json, Pairs
from proxy.cli.progress import Meter, Throttle
from proxy.cli.render import event_json
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.hub.names import Pair
from proxy.tasks import export as tasks
from proxy.tasks import warm
from proxy.tasks.volumes import FileSink, PipeSink, Sink
from proxy.yamlfile import parse_size

_STDOUT = "-"


def command(  # noqa: PLR0913, PLR0917  # one argument for each option
    ctx: typer.Context,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; - is a pipe."),
    ],
    pairs: Pairs = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="Write FILE.000, FILE.001, … of this size each, for example 4G."
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE|FINGERPRINT",
            help="Leave out what this earlier bundle, or the pair with this fingerprint, has.",
        ),
    ] = "",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Missing files fetched at a time.")
    ] = 4,
    json: Json = False,
) -> None:
    """Write locked pairs with all their files as one bundle, for a site without a link.

    What is not held is fetched first. Every file is hashed while it is written. The other side
    runs: hubpin import FILE
    """

    async def work() -> int:
        chosen = console.pairs(pairs)
        sink = _sink(output, split, json=json)
        config = console.session(ctx).config()
        return await _export(config, chosen, sink, (since, jobs), json=json)

    console.run(work)


def _sink(output: str, split: str, *, json: bool) -> Sink:
    if output == _STDOUT:
        if split:
            raise ConfigError("--split", None, "a pipe cannot be split; name a file")
        if json:
            raise ConfigError("--json", None, "the bundle itself goes to stdout; name a file")
        return PipeSink(FileIO(sys.stdout.fileno(), "wb", closefd=False))
    try:
        size = parse_size(split) if split else 0
    except ValueError as e:
        raise ConfigError("--split", None, str(e)) from e
    if split and size < 1:
        raise ConfigError("--split", None, "a part has at least one byte")
    return FileSink(Path(output), size)


async def _export(
    config: Config, pairs: list[Pair] | None, sink: Sink, how: tuple[str, int], *, json: bool
) -> int:
    since, jobs = how
    throttle = Throttle()
    async with open_mirror(config) as mirror:
        known = await tasks.known(mirror, since) if since else frozenset()
        with Meter("exporting", silent=json) as meter:
            async with aclosing(
                tasks.export(mirror, pairs, sink, since=known, jobs=jobs)
            ) as events:
                async for event in events:
                    if not json:
                        _show(event, meter)
                    elif not isinstance(event, tasks.Wrote | warm.Progress) or throttle():
                        console.emit(event_json(event))
    return DONE


def _show(event: tasks.Event, meter: Meter) -> None:
    match event:
        case tasks.Writing():
            meter.close()
            meter.say(
                f"writing {event.pairs} pairs: {event.files} files, {console.size(event.bytes)}"
                + (
                    f"; {event.known_files} files ({console.size(event.known_bytes)}) are left "
                    "out, the other side has them"
                    if event.known_files
                    else ""
                )
            )
            meter.plan(event.files, event.bytes)
        case tasks.Wrote():
            meter.update(event.done_files, event.done_bytes)
        case tasks.Finished():
            meter.close()
            for name in event.written:
                meter.say(f"wrote {name}")
            meter.say(
                f"{event.files} files, {console.size(event.bytes)}; the bundle has "
                f"{event.archive_bytes:,} bytes",
                "green",
            )
        case warm.Planned():
            meter.say(
                f"{event.files} files ({console.size(event.bytes)}) are not held and are fetched "
                "first"
            )
            meter.plan(event.files, event.bytes)
        case _:
            warming.show(event, meter)
