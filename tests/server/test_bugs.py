"""An error that nobody foresaw, as clients, metrics and the log have it."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from proxy.hub.names import RepoId
from proxy.server import git, health
from proxy.server.site import Call
from proxy.telemetry import metrics
from tests.server.world import World


async def test_a_bug_shows_no_traceback_and_is_loud_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> object:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(type(world.mirror.reloader), "catalog", property(lambda _: broken()), False)
    before = counted(500)
    reply = await world.ask("/api/models/acme/tiny")
    assert (reply.status, reply.code) == (500, "InternalError")
    assert b"ZeroDivision" not in reply.raw
    assert "ZeroDivisionError" in caplog.text
    name = reply.headers["X-Request-Id"]
    assert f"internal error; see the mirror's log, request {name}" in reply.body.decode()
    assert any(name in one.getMessage() and one.exc_info for one in caplog.records)
    assert counted(500) == before + 1


async def test_a_bug_in_the_middle_of_an_answer_cuts_it(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(call: Call) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(call.request)
        await response.write(b"a part")
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(health, "status", broken)
    reply = await world.ask("/-/status")
    assert (reply.status, reply.body) == (200, b"a part")
    assert "ZeroDivisionError" in caplog.text


async def test_a_bug_is_told_in_the_form_that_the_client_shows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(call: Call, repo: RepoId) -> list[git.Ref]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(git, "_refs", broken)
    reply = await world.ask("/acme/tiny/info/refs?service=git-upload-pack")
    assert (reply.status, reply.code) == (500, "InternalError")
    assert reply.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("kind", [ConnectionResetError, asyncio.CancelledError])
async def test_a_client_that_leaves_is_no_bug(
    world: World,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BaseException],
) -> None:
    async def broken(call: Call) -> web.StreamResponse:
        raise kind

    monkeypatch.setattr(health, "status", broken)
    before = counted(500)
    await world.ask("/-/status")
    assert counted(500) == before
    assert "proxy.server.app" not in {one.name for one in caplog.records}


def counted(status: int) -> float:
    labels = {"status": str(status)}
    return metrics.REGISTRY.get_sample_value("hubpin_requests_total", labels) or 0.0
