"""hubpin doctor"""

from __future__ import annotations

from contextlib import aclosing

import typer

from proxy.cli import console, env
from proxy.cli.console import DONE, FAILED, Json
from proxy.cli.render import event_json
from proxy.tasks import doctor as tasks
from proxy.tasks.doctor import Verdict

_STYLES = {Verdict.OK: "green", Verdict.SKIP: "dim", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


def command(ctx: typer.Context, json: Json = False) -> None:
    """Look at everything that the mirror needs, and say what to do; exit 1 if something FAILs."""

    async def work() -> int:
        status = FAILED
        async with aclosing(tasks.doctor(console.session(ctx).config, env.settings)) as events:
            async for event in events:
                if isinstance(event, tasks.Finished) and not event.failed:
                    status = DONE
                if json:
                    console.emit(event_json(event))
                else:
                    _show(event)
        return status

    console.run(work)


def _show(event: tasks.Event) -> None:
    match event:
        case tasks.Checked():
            found = " ".join(event.found.split())
            console.data(f"{event.verdict:<4}  {event.what:<13}  {found}", _STYLES[event.verdict])
            if event.advice:
                console.data(f"{'':<21}→ {event.advice}")
        case tasks.Finished():
            console.say(f"{event.failed} failed, {event.warned} warnings", "dim")
