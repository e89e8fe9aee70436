"""An upstream far away: `python -m benchmarks.slowhub PORT ROOT BYTES_PER_SECOND DELAY_S`.

Each connection gets so many bytes a second, and every answer begins that much later.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from benchmarks.stage import COMMIT

_TICK_S = 0.02
_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d*)", re.IGNORECASE)


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    root: Path,
    *,
    rate: float,
    delay_s: float,
) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b" ", 2)
            content = root / path.decode().lstrip("/")
            size = content.stat().st_size
            asked = _RANGE.search(head)
            start = int(asked[1]) if asked else 0
            stop = int(asked[2]) + 1 if asked and asked[2] else size
            await asyncio.sleep(delay_s)
            status = "206 Partial Content" if asked else "200 OK"
            extra = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n" if asked else ""
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\n{extra}"
                f'X-Repo-Commit: {COMMIT}\r\nETag: "slow"\r\n\r\n'.encode()
            )
            if method == b"GET":
                await _send(writer, content, start, stop, rate)
    except (ConnectionError, asyncio.IncompleteReadError, OSError):
        return
    finally:
        writer.close()


async def _send(
    writer: asyncio.StreamWriter, content: Path, start: int, stop: int, rate: float
) -> None:
    loop = asyncio.get_running_loop()
    began, first = loop.time(), start
    with content.open("rb") as file:
        file.seek(start)
        while start < stop:
            due = first + int((loop.time() - began + _TICK_S) * rate)
            piece = file.read(min(stop, due) - start)
            start += len(piece)
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(_TICK_S)


async def main(port: int, root: Path, rate: float, delay: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _serve(reader, writer, root, rate=rate, delay_s=delay)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
