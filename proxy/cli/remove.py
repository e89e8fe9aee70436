"""hubpin remove"""

from __future__ import annotations

import typer

from proxy.cli import console
from proxy.cli.console import DONE, FAILED, Json, PairText
from proxy.hub.names import Pair
from proxy.tasks import edit


def command(ctx: typer.Context, pair: PairText, json: Json = False) -> None:
    """Take a pair off the allowlist, keeping the file's comments. It is not served any more.

    Its lock and its files stay until hubpin lock and hubpin gc.
    """

    async def work() -> int:
        file = console.session(ctx).config().allowlist
        edited = await edit.remove(file, Pair(pair))
        if json:
            console.emit({"pair": edited.pair, "changed": edited.changed, "file": str(file)})
        elif edited.changed:
            console.data(f"removed {edited.pair} from {file}; hubpin lock and hubpin gc tidy up")
        if not edited.changed:
            return console.fail(f"{edited.pair} is not in {file}", FAILED)
        return DONE

    console.run(work)
