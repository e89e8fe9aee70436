"""hubpin env"""

from __future__ import annotations

import enum
import re
from typing import Annotated

import typer

from proxy.cli import console
from proxy.cli.console import DONE, Json
from proxy.errors import InvalidName
from proxy.tasks import ports

# What a device sets. Xet goes around any mirror, and a client sends its token to whatever
# HF_ENDPOINT names (huggingface_hub, utils/_headers.py, build_hf_headers). The `hf` command looks
# for a newer version of itself on the internet (cli/_cli_utils.py), which a device may not have.
_SETTINGS = {
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_XET": "1",
}
_URL = re.compile(r"https?://([A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")


class Shell(enum.Enum):
    """Where the lines are pasted."""

    SH = "sh"
    POWERSHELL = "powershell"
    CMD = "cmd"
    SYSTEMD = "systemd"
    DOCKER = "docker"


def command(
    ctx: typer.Context,
    shell: Annotated[Shell, typer.Option(help="Where the lines are pasted.")] = Shell.SH,
    url: Annotated[
        str, typer.Option(metavar="URL", help="The mirror as devices reach it.", show_default=False)
    ] = "",
    json: Json = False,
) -> None:
    """Print what a device needs to use this mirror. Try: eval "$(hubpin env)"."""

    async def work() -> int:
        where = url or ports.lan_urls(console.session(ctx).config().listen)[0]
        where = where.rstrip("/")
        if json:
            console.emit(settings(where))
        else:
            for line in lines(shell, where):
                console.data(line)
        return DONE

    console.run(work)


def settings(url: str) -> dict[str, str]:
    """Variables and their values; NO_PROXY is to be added to what is there."""
    return {"HF_ENDPOINT": url, **_SETTINGS, "NO_PROXY": _host(url)}


def lines(shell: Shell, url: str) -> list[str]:
    """What to paste. Raises: InvalidName, if that is no URL of a mirror."""
    host = _host(url)
    values = {"HF_ENDPOINT": url, **_SETTINGS}
    match shell:
        case Shell.SH:
            return [
                *(f"export {name}={value}" for name, value in values.items()),
                f'export NO_PROXY="${{NO_PROXY:+$NO_PROXY,}}{host}"',
                'export no_proxy="$NO_PROXY"',
            ]
        case Shell.POWERSHELL:
            return [
                *(f'$env:{name} = "{value}"' for name, value in values.items()),
                f'$env:NO_PROXY = (@($env:NO_PROXY, "{host}") | Where-Object {{ $_ }}) -join ","',
            ]
        case Shell.CMD:
            return [
                *(f'set "{name}={value}"' for name, value in values.items()),
                f'if defined NO_PROXY (set "NO_PROXY=%NO_PROXY%,{host}") '
                f'else (set "NO_PROXY={host}")',
            ]
        case Shell.SYSTEMD:
            return [
                "[Service]",
                *(f"Environment={name}={value}" for name, value in values.items()),
                f"Environment=NO_PROXY={host}",
            ]
        case Shell.DOCKER:
            return [
                *(f"--env {name}={value} \\" for name, value in values.items()),
                f"--env NO_PROXY={host}",
            ]


def _host(url: str) -> str:
    """Of a URL that means the same in every shell."""
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match[2] or 80) < 65536:
        raise InvalidName("URL of a mirror", url, "write http://host:port, without a path")
    return match[1].strip("[]")
