"""hubpin serve"""

from __future__ import annotations

import typer

from proxy.cli import console
from proxy.server.run import serve


def command(ctx: typer.Context) -> None:
    """Serve in the foreground, until Ctrl-C or SIGTERM. This is what a service manager runs."""

    async def work() -> int:
        await serve(console.session(ctx).config())
        return console.DONE

    console.run(work)
