"""hubpin add"""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli import console
from proxy.cli.console import DONE, Json, PairText
from proxy.hub.names import Pair, Revision
from proxy.pins.allowlist import Allowed
from proxy.tasks import edit

_Patterns = list[str] | None


def command(  # noqa: PLR0913, PLR0917  # one argument for each option
    ctx: typer.Context,
    pair: PairText,
    include: Annotated[
        _Patterns, typer.Option(metavar="PATTERN", help="Only these files, e.g. '*.json'.")
    ] = None,
    exclude: Annotated[
        _Patterns, typer.Option(metavar="PATTERN", help="Not these files, e.g. '*.bin'.")
    ] = None,
    serve_as: Annotated[
        _Patterns, typer.Option(metavar="REVISION", help="Answer for this revision, too.")
    ] = None,
    share_lan: Annotated[
        bool, typer.Option("--share-lan", help="Open a gated or private repository to the LAN.")
    ] = False,
    json: Json = False,
) -> None:
    """Put a pair on the allowlist, keeping its comments and layout. Options may be repeated."""

    async def work() -> int:
        wanted = Pair(pair)
        file = console.session(ctx).config().allowlist
        allowed = Allowed(
            repo=wanted.repo,
            revision=wanted.revision,
            line=0,
            serve_as=tuple(Revision(one) for one in serve_as) if serve_as else None,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            share_lan=share_lan,
        )
        edited = await edit.add(file, allowed)
        if json:
            console.emit({"pair": edited.pair, "changed": edited.changed, "file": str(file)})
        elif edited.changed:
            console.data(f"added {edited.pair} to {file}; next: hubpin lock")
        else:
            console.data(f"{edited.pair} is in {file} already; nothing is changed")
        return DONE

    console.run(work)
