"""Plain aiohttp apps to compare with: `python -m benchmarks.apps bare|file PORT ROOT`.

bare    one route, 700 bytes from memory; what aiohttp costs by itself
file    FileResponse below ROOT; what is usually written
"""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web

_BODY = bytes(700)


async def _bare(request: web.Request) -> web.StreamResponse:
    return web.Response(body=_BODY, headers={"ETag": '"a"', "X-Repo-Commit": "b"})


def main(kind: str, port: int, root: Path) -> None:
    async def file(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(root / request.match_info["path"])

    app = web.Application()
    app.router.add_get("/{path:.*}", file if kind == "file" else _bare)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, backlog=4096)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
