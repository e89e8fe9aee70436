"""The `hubpin` command: every subcommand, listed by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli import (
    add,
    audit,
    demo,
    diff,
    doctor,
    env,
    export,
    gc,
    import_,
    init,
    lock,
    remove,
    serve,
    start,
    status,
    stop,
    verify,
    warm,
)
from proxy.cli.console import Session, data
from proxy.telemetry import logs

_COMMANDS: dict[str, Callable[..., None]] = {
    "init": init.command,
    "add": add.command,
    "remove": remove.command,
    "lock": lock.command,
    "diff": diff.command,
    "warm": warm.command,
    "serve": serve.command,
    "start": start.command,
    "stop": stop.command,
    "status": status.command,
    "doctor": doctor.command,
    "verify": verify.command,
    "gc": gc.command,
    "audit": audit.command,
    "export": export.command,
    "import": import_.command,
    "env": env.command,
    "demo": demo.command,
}
COMMANDS: tuple[str, ...] = tuple(_COMMANDS)


def build() -> typer.Typer:
    app = typer.Typer(
        name="hubpin",
        help="A caching mirror of the Hugging Face Hub that locks versions.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, function in _COMMANDS.items():
        app.command(name)(function)
    return app


def _options(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Read this hubpin.yaml (default: $HUBPIN_CONFIG, else ./hubpin.yaml).",
        ),
    ] = None,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more; twice: everything.")
    ] = 0,
    show_version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda shown: _version(shown=shown)),
    ] = False,
) -> None:
    """Options that stand before the command."""
    ctx.obj = Session(config, verbose)
    # A server's log is its diary; for the other commands it is noise unless something is wrong.
    usual = logging.INFO if ctx.invoked_subcommand == "serve" else logging.WARNING
    level = min(usual, logging.INFO if verbose == 1 else usual)
    logs.setup(logs.TEXT, logging.DEBUG if verbose > 1 else level)


def _version(*, shown: bool) -> None:
    if shown:
        data(f"hubpin {version('hubpin')}")
        raise typer.Exit
