"""What every command shares: where words go, how errors look, which status the process ends with.

stdout is data, stderr is talk. 0 done, 1 the work failed, 2 the operator's input is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from proxy import config as configs
from proxy.config import Config
from proxy.errors import ConfigError, InstanceRunning, MirrorError, Refused
from proxy.hub.names import Pair
from proxy.telemetry import logs

log = logging.getLogger(__name__)

DONE, FAILED, WRONG_INPUT = 0, 1, 2

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[REPO@REVISION]...", help="Only these pairs; none: all of them."),
]
PairText = Annotated[
    str, typer.Argument(metavar="REPO@REVISION", help="For example openai/whisper-tiny@main.")
]


@dataclass(frozen=True, slots=True)
class Session:
    """The options that stand before the command."""

    config_file: Path | None = None
    verbose: int = 0

    def config(self) -> Config:
        """Read it, and log as it says from here on. Raises: ConfigError."""
        config = configs.load(self.config_file)
        if config.log != logs.TEXT:
            logs.setup(config.log, logging.getLogger().level)
        return config


def session(ctx: typer.Context) -> Session:
    return ctx.obj if isinstance(ctx.obj, Session) else Session()


def pairs(texts: list[str] | None) -> list[Pair] | None:
    """None for none: all of them. Raises: InvalidName."""
    return [Pair(text) for text in texts] if texts else None


# --- words ---------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Without characters that move a terminal's cursor; upstreams choose some of our words."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def talk() -> Console:
    """stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """A line for the person who watches."""
    talk().print(Text(clean(text), style=style))


def warn(text: str) -> None:
    say(f"hubpin: warning: {text}", "yellow")


def data(text: str = "", style: str = "") -> None:
    """A line of the result."""
    Console(highlight=False, soft_wrap=True).print(Text(clean(text), style=style))


def emit(value: object) -> None:
    """One JSON value on one line of stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def size(count: float) -> str:
    """`90.9 MB`: decimal, as the Hub's web page counts."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


# --- running -------------------------------------------------------------------------------------


def run(work: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run a command's work and end with its status; our errors become one line and a status."""
    try:
        status = asyncio.run(_until_told(work))
    except (ConfigError, Refused, InstanceRunning) as e:
        status = fail(e, WRONG_INPUT)
    except MirrorError as e:
        status = fail(e, FAILED)
    except KeyboardInterrupt:
        say("hubpin: interrupted", "red")
        status = 128 + signal.SIGINT
    except asyncio.CancelledError:
        say("hubpin: told to stop", "red")
        status = 128 + signal.SIGTERM
    raise typer.Exit(status)


def fail(error: MirrorError | str, status: int = FAILED) -> int:
    """Say in one line what went wrong."""
    log.debug("%s", error, exc_info=error if isinstance(error, MirrorError) else None)
    say(f"hubpin: {error}", "bold red")
    return status


async def _until_told(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """SIGTERM ends the work as Ctrl-C does: what it opened is closed."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: a test
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work()
