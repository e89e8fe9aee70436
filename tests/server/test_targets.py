"""Targets of requests that are no plain path."""

from __future__ import annotations

import pytest

from tests.server.world import World


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
@pytest.mark.parametrize("host", ["mirror", "Mirror:8090", "[::1]:8090"])
async def test_an_absolute_target_on_this_host_is_the_same_as_its_path(
    world: World, scheme: str, host: str
) -> None:
    """RFC 9112 §3.2.2: a server accepts it; who is told of a proxy sends it."""
    headers = {"Host": host.lower()}
    for target in (world.url("config.json"), "/api/models/acme/tiny/tree/main?recursive=true"):
        plain = await world.ask(target, headers=headers)
        reply = await world.ask(f"{scheme}://{host}{target}", headers=headers)
        assert (reply.status, reply.body) == (200, plain.body)
    for rest in ("", "/", "?x"):
        reply = await world.ask(f"{scheme}://{host}{rest}", headers=headers)
        assert reply.body.startswith(b"hubpin:")


@pytest.mark.parametrize(
    "start",
    [
        "http://evil.example", "http://mirror:8090", "http://user@mirror", "ftp://mirror",
        "http://mirror.evil.example", "http:mirror", "mirror", "http:///", "http://",
    ],
)  # fmt: skip
async def test_an_absolute_target_elsewhere_is_not_fetched(world: World, start: str) -> None:
    asked = len(world.hub.asked)
    reply = await world.ask(start + world.url("config.json"), headers={"Host": "mirror"})
    assert reply.status in (400, 404)
    assert len(world.hub.asked) == asked


@pytest.mark.parametrize("target", ["/-/status#x", "/#", "/acme/tiny/resolve/main/config.json#x?y"])
async def test_a_target_has_no_fragment(world: World, target: str) -> None:
    """RFC 9112 §3.2: what is behind `#` is for the client alone, and another server reads on."""
    for start in ("", "http://mirror"):
        reply = await world.ask(start + target, headers={"Host": "mirror"})
        assert (reply.status, reply.code) == (400, "BadRequest")
