"""Tokens stay where they belong: the client's is dropped, the upstream's goes to the upstream."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import MakeDevice, MakeMirror, Tap
from tests.e2e.marks import E2E, every_client
from tests.fakes.hub_process import HubProcess
from tests.fakes.rawclient import Answer
from tests.fakes.settings import TOKEN

pytestmark = E2E

MINE = "hf_theTokenOfThePersonAtTheDevice"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN)
    return file


@every_client
def test_a36_no_token_appears_where_it_does_not_belong(
    start_mirror: MakeMirror, upstream: HubProcess, token_file: Path, device: MakeDevice, tap: Tap
) -> None:
    upstream.restrict("acme/tiny", private=True)
    listed = "{repo: acme/tiny, revision: main, share: lan}"
    mirror = start_mirror(listed, token_file=token_file)
    wire = tap(mirror.url)
    machine = device(wire.url, HF_TOKEN=MINE)
    assert not machine.snapshot().error
    refused = machine.file("config.json", "acme/other")
    missing = machine.file("missing.json")
    for path in ("/-/status", "/metrics", "/-/lock", "/api/whoami-v2"):
        Answer(f"{wire.url}{path}", headers={"Authorization": f"Bearer {MINE}"})
    mirror.stop()

    # The client did send it, or this test shows nothing.
    assert any(MINE.lower() in asked.headers for asked in wire.asked)
    for seen in upstream.requests():
        assert MINE not in repr(seen)
        own = f"Bearer {TOKEN}" if seen.host == "hub" else None
        assert seen.headers.get("authorization") == own
    for secret in (MINE, TOKEN):
        assert secret not in mirror.log
        assert secret.encode() not in wire.answered
        assert secret not in f"{refused}{missing}"
        for file in mirror.folder.rglob("*"):
            assert not file.is_file() or secret.encode() not in file.read_bytes(), file
