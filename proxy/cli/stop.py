"""hubpin stop"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli import console, start
from proxy.cli.console import DONE, FAILED, Json
from proxy.cli.render import event_json
from proxy.tasks import background as tasks


def command(
    ctx: typer.Context,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.0, help="How long it may take before it is killed."),
    ] = 30.0,
    json: Json = False,
) -> None:
    """End the server that start runs in the background. Nothing to stop is fine, too."""

    async def work() -> int:
        config = console.session(ctx).config()
        status = DONE
        async for event in tasks.stop(config, timeout_s=timeout):
            if isinstance(event, tasks.NotOurs):
                status = FAILED
            if json:
                console.emit(event_json(event))
            else:
                start.show(event)
        return status

    console.run(work)
