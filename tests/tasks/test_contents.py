"""diff looks into configs and into the headers of safetensors, and takes nothing for granted."""

from __future__ import annotations

import json

import pytest

from proxy.hub.names import Pair
from proxy.tasks import diff as tasks
from proxy.tasks.contents import Changed, Contents
from tests.fakes.content import Content
from tests.fakes.memory import FakeHub
from tests.tasks.conftest import PAIR, REPO, Site, collect

LARGE = 5 << 20


def tensors(dtype: str = "F32", /, **shapes: list[int]) -> bytes:
    """A safetensors file, without its weights."""
    header = {name: {"dtype": dtype, "shape": shape} for name, shape in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text


def weights(header: bytes, seed: str) -> bytes:
    """A header in front of much that nobody should read."""
    return header + Content(seed, LARGE).read(0, LARGE)


async def look(site: Site, hub: FakeHub) -> Contents:
    """What changes from what is locked to what the hub has."""
    hub.sent = 0
    async with site.mirror() as mirror:
        events = await collect(tasks.diff(mirror, Pair(PAIR), None))
    compared = events[-1]
    assert isinstance(compared, tasks.Compared)
    return compared.contents


async def test_keys_of_a_config_are_compared_however_deep(site: Site, hub: FakeHub) -> None:
    hub.publish(REPO, "config.json", '{"a": 1, "b": {"c": [1], "d": 2}}', lfs=False)
    await site.run_lock()
    hub.publish(REPO, "config.json", '{"a": 2, "b": {"c": [1], "e": {}}}', lfs=False)
    assert (await look(site, hub)).config == (
        Changed("config.json", "a", "1", "2"),
        Changed("config.json", "b.d", "2", None),
        Changed("config.json", "b.e", None, "{}"),
    )


async def test_tensors_are_compared_by_their_headers(site: Site, hub: FakeHub) -> None:
    hub.publish(REPO, "a.safetensors", tensors(kept=[2], gone=[2, 3], moved=[1]))
    await site.run_lock()
    hub.publish(REPO, "a.safetensors", tensors("F16", kept=[2]))
    hub.publish(REPO, "b.safetensors", tensors(new=[4], moved=[1]))
    assert (await look(site, hub)).tensors == (
        Changed(".", "gone", "F32 [2, 3]", None),
        Changed(".", "kept", "F32 [2]", "F16 [2]"),
        Changed(".", "new", None, "F32 [4]"),
    )


async def test_of_a_large_file_only_the_beginning_is_read(site: Site, hub: FakeHub) -> None:
    hub.publish(REPO, "m.safetensors", weights(tensors(a=[1]), "old"))
    await site.run_lock()
    many = {f"layer.{number}": [number] for number in range(9000)}
    hub.publish(REPO, "m.safetensors", weights(tensors("F32", **many), "new"))
    found = await look(site, hub)
    assert len(found.tensors) == 9001
    assert hub.sent < 1 << 20


async def test_what_is_held_needs_no_upstream(site: Site, hub: FakeHub) -> None:
    hub.publish(REPO, "config.json", '{"a": 1}', lfs=False)
    hub.world.repo(REPO).tag("v1")
    hub.publish(REPO, "config.json", '{"a": 2}', lfs=False)
    site.allow(f"- {PAIR}", "- acme/tiny@v1")
    await site.run_lock()
    hub.down = True
    async with site.mirror() as mirror:
        events = await collect(tasks.diff(mirror, Pair("acme/tiny@v1"), Pair(PAIR)))
    assert isinstance(events[-1], tasks.Compared)
    assert len(events[-1].contents.config) == 1
    assert events[-1].contents.unread == ()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"short",
        b"\xff" * 8 + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": [1]',
        (10).to_bytes(8, "little") + b'{"a": {}}}',
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
    ids=range(7),
)
async def test_a_header_that_is_none_is_named_and_fails_nothing(
    site: Site, hub: FakeHub, bad: bytes
) -> None:
    hub.publish(REPO, "m.safetensors", tensors(a=[1]))
    await site.run_lock()
    hub.publish(REPO, "m.safetensors", bad)
    found = await look(site, hub)
    assert [one.path for one in found.unread] == ["m.safetensors"]
    assert found.tensors == ()


async def test_a_config_that_is_no_json_is_named(site: Site, hub: FakeHub) -> None:
    await site.run_lock()
    hub.publish(REPO, "config.json", "[" * 5000, lfs=False)
    found = await look(site, hub)
    assert [one.path for one in found.unread] == ["config.json"]
    assert found.config == ()
