"""hubpin start"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli import console, env
from proxy.cli.console import DONE, FAILED, Json
from proxy.cli.env import Shell
from proxy.cli.render import event_json
from proxy.tasks import background as tasks
from proxy.tasks import instance

_TITLES = {
    Shell.SH: "Linux, macOS (sh)",
    Shell.POWERSHELL: "Windows PowerShell",
    Shell.CMD: "Windows cmd",
}


def command(
    ctx: typer.Context,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How long it may take to be ready.")
    ] = 30.0,
    json: Json = False,
) -> None:
    """Run the server in the background, wait until it answers, and print what devices need.

    A server that an earlier start left running is replaced. If another program has the port, it is
    named and nothing happens.
    """

    async def work() -> int:
        config = console.session(ctx).config()
        status = FAILED
        async for event in tasks.start(config, timeout_s=timeout):
            if isinstance(event, tasks.Ready):
                status = DONE
            if json:
                console.emit(event_json(event))
            elif isinstance(event, tasks.Ready):
                _show_ready(event, str(instance.log_file(config)))
            else:
                show(event)
        return status

    console.run(work)


def show(event: tasks.StartEvent) -> None:
    match event:
        case tasks.Replacing():
            console.say(f"replacing the server of an earlier start (pid {event.pid})")
        case tasks.Stopping():
            console.say(f"stopping pid {event.pid} …", "dim")
        case tasks.Killed():
            console.warn(f"pid {event.pid} did not end within {event.waited_s:g} s and was killed")
        case tasks.Stopped():
            console.say(f"pid {event.pid} has ended")
        case tasks.NotRunning():
            console.say("no server is running")
        case tasks.NotOurs():
            console.fail(
                f"a server with this data directory runs as pid {event.pid}, and it was not "
                "started by hubpin start: end it where it was started (Ctrl-C, or its service)"
            )
        case tasks.PortTaken():
            console.fail(
                f"{event.listen} is taken by {event.holder}. End that program, or give hubpin "
                "another port (listen: in hubpin.yaml)"
            )
        case tasks.Spawned():
            console.say(f"pid {event.pid} is starting; its log is {event.log}", "dim")
        case tasks.Failed():
            for line in event.tail:
                console.say(f"  | {line}")
            console.fail(f"{event.problem}; these were its last words")
        case tasks.Ready():
            pass


def _show_ready(event: tasks.Ready, log: str) -> None:
    console.say(f"ready after {event.took_s:.1f} s (pid {event.pid}, log {log})", "green")
    console.data(f"The mirror serves at {event.urls[0]}")
    for url in event.urls[1:]:
        console.data(f"                 and {url}")
    if "//127." in event.urls[0] or "//[::1]" in event.urls[0]:
        console.warn("it can be reached from this machine alone (listen: in hubpin.yaml)")
    console.data()
    console.data("Paste on a device:")
    for shell, title in _TITLES.items():
        console.data()
        console.data(f"  # {title}" if shell is not Shell.CMD else f"  rem {title}")
        for line in env.lines(shell, event.urls[0]):
            console.data(f"  {line}")
