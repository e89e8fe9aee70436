"""hubpin audit"""

from __future__ import annotations

import re
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli.console import DONE, Json
from proxy.cli.render import event_json
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.tasks import audit as tasks
from proxy.telemetry.audit import timestamp

_SHOWN = 5  # paths that are missing


def command(
    ctx: typer.Context,
    device: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Only this device; else all of them.")
    ] = "",
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="2026-03-01, or 2026-03-01T12:00 (local time)."),
    ] = "",
    lock: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="An older allowlist.lock, for commits that are not locked any more. "
            "May be repeated.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Which commits a device took, completely or in part, and what it was refused.

    Completely: every byte of every file of the pair was sent to it. Changes nothing.
    """

    async def work() -> int:
        for file in lock or ():
            if not file.exists():
                raise ConfigError(file, None, "there is no such file")
        config = console.session(ctx).config()
        return await _audit(config, device, _moment(since), lock or [], json=json)

    console.run(work)


def _moment(text: str) -> str:
    """As the log writes it. Raises: ConfigError."""
    if not text:
        return ""
    try:
        if not re.match(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        moment = datetime.fromisoformat(text)
        return timestamp(moment.astimezone(UTC).timestamp())
    except (ValueError, OverflowError) as e:  # overflow: the year 1 or 9999, seen from elsewhere
        raise ConfigError("--since", None, f"{text!a} is not a time; write 2026-03-01") from e


async def _audit(config: Config, device: str, since: str, older: list[Path], *, json: bool) -> int:
    if not config.audit:
        console.warn("audit: false, so nothing is written down any more")
    said = 0
    async with open_mirror(config) as mirror:
        found = tasks.audit(mirror, device=device, since=since, older=older)
        async with aclosing(found) as events:
            async for event in events:
                if json:
                    console.emit(event_json(event))
                else:
                    _show(event)
                said += not isinstance(event, tasks.Read)
    if not said and not json:
        console.data("nothing was taken")
    return DONE


def _show(event: tasks.Event) -> None:
    match event:
        case tasks.Took(pair=None):
            console.data(
                f"{event.device}  took     {event.repo} at {event.commit}, which no lock here has; "
                f"name an older one with --lock  {event.at}",
                "yellow",
            )
        case tasks.Took(complete=True):
            console.data(
                f"{event.device}  all of   {event.pair}  {event.commit}  {event.fingerprint}  "
                f"{event.files} files  {event.at}",
                "green",
            )
        case tasks.Took(missing=(), files=files) if files:
            console.data(
                f"{event.device}  handed   {event.pair}  {event.commit}  {event.fingerprint}  "
                f"{event.handed_files} of {event.files} files to nginx, whose log says how much "
                f"of them went out  {event.at}"
            )
        case tasks.Took():
            cut = ", …" if len(event.missing) > _SHOWN else ""
            console.data(
                f"{event.device}  part of  {event.pair}  {event.commit}  "
                f"{event.taken_files} of {event.files} files{_handed(event)}  {event.at}; "
                f"not: {', '.join(event.missing[:_SHOWN])}{cut}"
            )
        case tasks.Refused():
            times = f" ({event.times} times)" if event.times > 1 else ""
            console.data(
                f"{event.device}  refused  {event.target}: {event.message}{times}  {event.last}",
                "yellow",
            )
        case tasks.Read():
            since = f", since {event.since}" if event.since else ""
            console.say(f"{event.events} events in the log{since}", "dim")
            if event.lost or event.unreadable:
                console.warn(
                    f"{event.lost} events could not be written when they happened, and "
                    f"{event.unreadable} lines cannot be read"
                )


def _handed(event: tasks.Took) -> str:
    return f", {event.handed_files} more handed to nginx" if event.handed_files else ""
