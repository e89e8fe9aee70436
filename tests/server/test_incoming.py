"""Bodies of requests: waited for, broken, and of every kind that makes no sense."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.server.world import World

PATHS = "/api/models/acme/tiny/paths-info/main"
BATCH = "/acme/tiny.git/info/lfs/objects/batch"
UPLOAD = "/acme/tiny.git/git-upload-pack"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=x"
PART = b"--x\r\nContent-Disposition: form-data; name=paths\r\n%b\r\n\r\nconfig.json\r\n--x--\r\n"


async def test_who_waits_to_be_asked_for_the_body_is_asked(world: World) -> None:
    """RFC 9110 §10.1.1: some clients wait a second without the 100, some for ever."""
    body = json.dumps({"paths": ["config.json"]}).encode()
    head = {
        "Content-Type": "application/json", "Content-Length": str(len(body)),
        "Expect": "100-Continue",
    }  # fmt: skip
    wire = await world.send(PATHS, method="POST", headers=head)
    async with asyncio.timeout(5):
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.writer.write(body)
    answer = await wire.read_head()
    assert answer.status == 200
    await wire.close()


async def test_who_is_refused_is_not_asked_for_the_body(world: World) -> None:
    head = {"Content-Length": "5", "Expect": "100-continue"}
    wire = await world.send("/acme/tiny/settings", method="POST", headers=head)
    assert (await wire.read_head()).status == 403
    await wire.close()


@pytest.mark.parametrize(
    ("target", "kind", "body"),
    [
        (PATHS, f"{FORM}; charset=nonsense", b"paths=config.json"),
        (PATHS, PARTS, b"--x\r\ngarbage"),
        (PATHS, PARTS, PART % b"Content-Transfer-Encoding: nonsense\r\n"),
        (PATHS, PARTS, PART % b"Content-Type: text/plain; charset=nonsense\r\n"),
        (BATCH, "a/b", b'{"operation": "download", "objects": [{"oid": "\\ud800", "size": 1}]}'),
        (BATCH, "a/b", b'{"operation": "download", "objects": [{"oid": "a", "size": 1e999}]}'),
    ],
)
async def test_a_body_that_makes_no_sense_is_a_bad_request(
    world: World, caplog: pytest.LogCaptureFixture, target: str, kind: str, body: bytes
) -> None:
    reply = await world.ask(target, method="POST", headers={"Content-Type": kind}, body=body)
    assert (reply.status, reply.code) == (400, "BadRequest")
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("target", [PATHS, BATCH, UPLOAD])
async def test_a_body_that_is_not_compressed_as_it_says_is_a_bad_request(
    world: World, target: str
) -> None:
    head = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    reply = await world.ask(target, method="POST", headers=head, body=b"no gzip")
    assert (reply.status, reply.code) == (400, "BadRequest")
