"""hubpin import"""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli.console import DONE, FAILED, Json
from proxy.cli.lock import pin_text
from proxy.cli.progress import Meter, Throttle
from proxy.cli.render import delta_lines, event_json
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.hub.names import Pair
from proxy.pins.allowlist import Allowed
from proxy.tasks import adopt, edit, volumes
from proxy.tasks import import_ as tasks
from proxy.tasks.volumes import Source

_Folder = Path | None


def command(  # noqa: PLR0913, PLR0917  # one argument for each option
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="A bundle, or its parts (the first one is enough); - is standard input.",
        ),
    ] = None,
    from_hf_cache: Annotated[
        _Folder, typer.Option(metavar="DIR", help="Take files of a Hugging Face cache instead.")
    ] = None,
    from_dir: Annotated[
        _Folder, typer.Option(metavar="DIR", help="Take files of a folder instead; needs --as.")
    ] = None,
    as_pair: Annotated[
        str, typer.Option("--as", metavar="REPO@REVISION", help="Which locked pair the folder is.")
    ] = "",
    accept_pins: Annotated[
        bool, typer.Option("--accept-pins", help="Put the bundle's pins into allowlist.lock.")
    ] = False,
    allow: Annotated[
        bool, typer.Option("--allow", help="With --accept-pins: put its pairs on the allowlist.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Let a pin go back to an older commit.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything; change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Take in a bundle that hubpin export wrote, or files that you have already.

    Everything is verified before any of it is served. Without --accept-pins only files that
    allowlist.lock names are taken. Files of a cache or a folder are copied if they are what
    allowlist.lock says; nothing else is.
    """

    async def work() -> int:
        config = console.session(ctx).config()
        if sum((bool(files), from_hf_cache is not None, from_dir is not None)) != 1:
            raise ConfigError("import", None, "name a bundle, or --from-hf-cache, or --from-dir")
        if (from_dir is None) != (not as_pair):
            raise ConfigError("--from-dir", None, "goes with --as REPO@REVISION, and only with it")
        if files:
            if allow and not accept_pins:
                raise ConfigError("--allow", None, "goes with --accept-pins")
            options = (accept_pins, allow, force, dry_run)
            return await _import(config, _source(files), options, json=json)
        if accept_pins or allow or force or dry_run:
            raise ConfigError("import", None, "these options are for bundles")
        return await _adopt(config, from_hf_cache, (from_dir, as_pair), json=json)

    console.run(work)


def _source(files: list[Path]) -> Source:
    if [str(file) for file in files] == ["-"]:
        return Source(pipe=sys.stdin.buffer)
    return Source(volumes.find(files))


# --- bundles -------------------------------------------------------------------------------------


async def _import(
    config: Config, source: Source, options: tuple[bool, bool, bool, bool], *, json: bool
) -> int:
    accept_pins, allow, force, dry_run = options
    throttle = Throttle()
    finished: tasks.Finished | None = None
    unlisted: list[Allowed] = []
    try:
        async with open_mirror(config) as mirror:
            with Meter("importing", silent=json) as meter:
                async with aclosing(
                    tasks.import_bundle(
                        mirror, source, accept_pins=accept_pins, force=force, dry_run=dry_run
                    )
                ) as events:
                    async for event in events:
                        if isinstance(event, tasks.NotAllowed):
                            unlisted.append(event.allowed)
                        elif isinstance(event, tasks.Finished):
                            finished = event
                        if not json:
                            _show(event, meter)
                        elif not isinstance(event, tasks.Checked) or throttle():
                            console.emit(event_json(event))
            if allow and not dry_run:
                for one in unlisted:
                    await edit.add(config.allowlist, one)
                    if not json:
                        console.data(f"allowed   {one.pair}")
                unlisted = []
    finally:
        source.close()
    assert finished is not None
    if not json:
        _conclude(finished, unlisted)
    return FAILED if finished.pins_left and not dry_run else DONE


def _show(event: tasks.Event, meter: Meter) -> None:
    match event:
        case tasks.Opened():
            meter.say(
                f"{event.name}: {event.pairs} pairs, {event.files} files, "
                f"{console.size(event.bytes)}, written by {event.tool}"
            )
        case tasks.Same():
            console.data(f"same      {pin_text(event.pin)}")
        case tasks.New():
            console.data(f"new       {pin_text(event.pin)}")
        case tasks.Moved():
            console.data(f"moved     {event.pin.pair}")
            console.data(f"  old     {event.old.commit}  {event.old.date}")
            console.data(
                f"  new     {event.pin.commit}  {event.pin.date}"
                + ("  (older than what is locked)" if event.back else "")
            )
            for line in delta_lines(event.delta):
                console.data(line)
        case tasks.Reading():
            meter.plan(event.files, event.bytes)
        case tasks.Checked():
            meter.update(event.done_files, event.done_bytes)
        case tasks.NotAllowed() | tasks.Finished():
            pass


def _conclude(event: tasks.Finished, unlisted: list[Allowed]) -> None:
    taken = console.size(event.taken_bytes)
    if event.dry_run:
        console.data(f"{event.taken_files} files are right ({taken}); nothing was changed")
    else:
        console.data(
            f"{event.taken_files} files taken ({taken}), {event.held_files} held already, "
            f"{event.left_files} left out; {event.pins} pins merged"
        )
    if event.pins_left:
        console.say(
            f"hubpin: {event.pins_left} new or moved pins are not in the lock; "
            "--accept-pins puts them there and takes their files",
            "yellow",
        )
    if unlisted:
        console.say("hubpin: not on the allowlist, so not served; to serve them:", "yellow")
        for one in unlisted:
            console.data(add_line(one))


def add_line(allowed: Allowed) -> str:
    """The command that allows a pair as it is allowed where it comes from."""
    words = ["hubpin", "add", str(allowed.pair)]
    for option, values in (
        ("--include", allowed.include),
        ("--exclude", allowed.exclude),
        ("--serve-as", allowed.serve_as or ()),
    ):
        for value in values:
            words += [option, value]
    if allowed.share_lan:
        words.append("--share-lan")
    return shlex.join(words)


# --- files that are there ------------------------------------------------------------------------


async def _adopt(config: Config, cache: _Folder, folder: tuple[_Folder, str], *, json: bool) -> int:
    throttle = Throttle()
    finished: adopt.Finished | None = None
    async with open_mirror(config) as mirror:
        events: AsyncGenerator[adopt.Event]
        if cache is not None:
            events = adopt.from_hf_cache(mirror, cache)
        else:
            assert folder[0] is not None
            events = adopt.from_folder(mirror, folder[0], Pair(folder[1]))
        with Meter("adopting", silent=json) as meter:
            async with aclosing(events) as opened:
                async for event in opened:
                    if isinstance(event, adopt.Finished):
                        finished = event
                    if not json:
                        _show_adopt(event, meter)
                    elif not isinstance(event, adopt.Adopted) or throttle():
                        console.emit(event_json(event))
    assert finished is not None
    if not json:
        console.data(
            f"{finished.adopted_files} files adopted ({console.size(finished.adopted_bytes)}), "
            f"{finished.held_files} held already, {finished.mismatched} not what the lock says, "
            f"{finished.absent} not there"
        )
    nothing = finished.adopted_files + finished.held_files == 0
    return FAILED if finished.mismatched or nothing else DONE


def _show_adopt(event: adopt.Event, meter: Meter) -> None:
    match event:
        case adopt.Planned():
            meter.say(
                f"{event.files} files are locked, {event.held_files} of them held; "
                f"{event.found_files} of the others are there ({console.size(event.found_bytes)})"
            )
            meter.plan(event.found_files, event.found_bytes)
        case adopt.Adopted():
            meter.update(event.done_files, event.done_bytes)
        case adopt.Mismatched():
            meter.say(
                f"hubpin: {event.entry.repo} {event.entry.path} was not taken: "
                f"{event.file}: {event.problem}",
                "bold red",
            )
        case adopt.Absent():
            meter.say(f"not there: {event.entry.repo} {event.entry.path}", "yellow")
        case adopt.Finished():
            pass
