"""hubpin lock"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from proxy.assemble import open_mirror
from proxy.cli import console
from proxy.cli.console import DONE, FAILED, Json
from proxy.cli.progress import Meter, Throttle
from proxy.cli.render import delta_lines, event_json
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.hub.names import Pair
from proxy.pins import allowlist
from proxy.pins.lock import Pin
from proxy.tasks import check as checks
from proxy.tasks import lock as tasks


def command(  # noqa: PLR0913, PLR0917  # one argument for each option
    ctx: typer.Context,
    update: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPO@REVISION",
            help="Move this pair to what its revision means upstream now. May be repeated.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Change nothing; exit 1 if a pair is unlocked or has drifted."
        ),
    ] = False,
    deny: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENDING",
            help="With --check: which locked files would be refused if formats: denied this "
            "ending, for example .bin. May be repeated.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Let --update go back to an older commit.")
    ] = False,
    json: Json = False,
) -> None:
    """Resolve the allowlist to commits and bytes, and freeze them in allowlist.lock.

    A pair that is locked is never moved, unless --update names it.
    """

    async def work() -> int:
        config = console.session(ctx).config()
        _refuse_idle(update or [], check=check, force=force)
        tried = _endings(deny or [], check=check)
        if check:
            return await _check(config, tried, json=json)
        return await _lock(config, [Pair(text) for text in update or ()], force=force, json=json)

    console.run(work)


def _refuse_idle(update: list[str], *, check: bool, force: bool) -> None:
    """Options that would do nothing. Raises: ConfigError."""
    if check and update:
        raise ConfigError("--update", None, "it moves a pair, and --check changes nothing")
    if check and force:
        raise ConfigError("--force", None, "it is for --update, and --check changes nothing")
    if force and not update:
        raise ConfigError("--force", None, "it lets --update go back; name a pair with --update")


def _endings(texts: list[str], *, check: bool) -> tuple[str, ...]:
    """Raises: ConfigError."""
    if texts and not check:
        raise ConfigError("--deny", None, "it only tries out; write --check, too")
    try:
        return allowlist.endings(texts)
    except ValueError as e:
        raise ConfigError("--deny", None, str(e)) from e


async def _lock(config: Config, update: list[Pair], *, force: bool, json: bool) -> int:
    failed = 0
    throttle = Throttle()
    async with open_mirror(config) as mirror:
        with Meter("reading small files", silent=json) as meter:
            async with aclosing(tasks.lock(mirror, update=update, force=force)) as events:
                async for event in events:
                    if isinstance(event, tasks.Finished):
                        failed = event.failed
                    if json:
                        if not isinstance(event, tasks.Reading) or throttle():
                            console.emit(event_json(event))
                    else:
                        _show(event, meter)
        async for dropped in tasks.prune(mirror):
            if json:
                console.emit(event_json(dropped))
            else:
                console.data(f"dropped   {dropped.pair}: it is not on the allowlist any more")
    if failed and not json:
        console.say(f"hubpin: {failed} of the pairs could not be locked", "bold red")
    return FAILED if failed else DONE


def _show(event: tasks.Event, meter: Meter) -> None:
    match event:
        case tasks.Resolving():
            meter.say(f"asking what {event.pair} means …", "dim")
        case tasks.Warned():
            meter.close()
            console.warn(f"{event.pair}: {event.message}")
        case tasks.Reading(done_files=0):
            meter.plan(event.total_files, event.total_bytes)
        case tasks.Reading():
            meter.update(event.done_files, event.done_bytes)
        case tasks.Locked(old=None):
            meter.close()
            console.data(f"locked    {pin_text(event.pin)}")
        case tasks.Locked():
            meter.close()
            assert event.old is not None
            assert event.delta is not None
            console.data(f"moved     {event.pair}")
            console.data(f"  old     {event.old.commit}  {event.old.date}")
            console.data(f"  new     {event.pin.commit}  {event.pin.date}")
            if event.old.license != event.pin.license:
                old, new = event.old.license or "none", event.pin.license or "none"
                console.data(f"  licence {old} → {new}", "bold yellow")
            for line in delta_lines(event.delta):
                console.data(line)
        case tasks.Kept():
            console.data(f"kept      {pin_text(event.pin)}")
        case tasks.Failed():
            meter.close()
            console.say(f"hubpin: {event.pair}: {event.error}", "bold red")
        case tasks.Finished():
            pass


def pin_text(pin: Pin) -> str:
    bytes_ = sum(entry.size for entry in pin.files.values())
    print_ = pin.fingerprint.hex[:16]
    return (
        f"{pin.pair}  {pin.commit[:12]}  {len(pin.files)} files  {console.size(bytes_)}  "
        f"fingerprint {print_}"
    )


async def _check(config: Config, deny: tuple[str, ...], *, json: bool) -> int:
    status = DONE
    async with open_mirror(config) as mirror, aclosing(checks.check(mirror, deny=deny)) as events:
        async for event in events:
            if isinstance(event, checks.Checked):
                bad = event.unlocked + event.drifted + event.filters_changed + event.unknown
                status = FAILED if bad else DONE
            if json:
                console.emit(event_json(event))
            else:
                _show_check(event)
    return status


def _show_check(event: checks.Event) -> None:
    match event:
        case checks.Unlocked():
            console.data(f"unlocked  {event.pair}: run hubpin lock", "bold")
        case checks.FilterChanged():
            console.data(
                f"filters   {event.pair}: include, exclude or formats changed since it was locked; "
                "run hubpin lock",
                "bold",
            )
        case checks.Denied():
            console.data(
                f"formats   {event.pair}: {len(event.paths)} of {event.files} files refused, "
                f"{console.size(event.bytes)}: {', '.join(event.paths)}",
                "bold",
            )
        case checks.Unlisted():
            console.data(f"unlisted  {event.pair}: in the lock only, so it is not served")
        case checks.Drifted(upstream_commit=None):
            console.data(
                f"drifted   {event.pair}: {event.upstream} does not have it any more; "
                f"served at {event.locked[:12]} as before",
                "bold yellow",
            )
        case checks.Drifted():
            console.data(
                f"drifted   {event.pair}: locked at {event.locked[:12]}, {event.upstream} moved it "
                f"to {str(event.upstream_commit)[:12]}. Look at it: hubpin diff {event.pair} "
                f"upstream. Follow it: hubpin lock --update {event.pair}",
                "bold yellow",
            )
        case checks.Unknown():
            console.data(f"unknown   {event.pair}: {event.error}", "yellow")
        case checks.InForce(asked=True):
            console.data(f"ok        {event.pair}  {event.commit[:12]}")
        case checks.InForce():
            console.data(f"ok        {event.pair}  {event.commit[:12]} (upstream not asked)")
        case tasks.Warned():
            console.warn(f"{event.pair}: {event.message}")
        case checks.Checked():
            pass
