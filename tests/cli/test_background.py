"""start and stop, with real processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import config as configs
from proxy.tasks import instance
from tests.cli.conftest import process


@pytest.fixture
def running(site: Path) -> Iterator[int]:
    """A server in the background; its pid."""
    said = process("start", "--json")
    assert said.status == 0, said.err
    yield int(said.events()[-1]["pid"])
    process("stop")


def status_of(site: Path) -> dict[str, object] | None:
    return instance.status(configs.load(site / "hubpin.yaml"))


def alive(pid: int) -> bool:
    record = instance.Record.of(pid, "", 0.0)
    return record is not None


def test_start_waits_until_the_server_answers(site: Path, running: int) -> None:
    said = status_of(site)
    assert said is not None
    assert said["pid"] == running
    assert process("status", "--json").json()["server"]["pid"] == running


def test_start_prints_what_to_paste(site: Path) -> None:
    try:
        said = process("start")
        for line in ("export HF_ENDPOINT=", "$env:HF_ENDPOINT = ", 'set "HF_ENDPOINT='):
            assert line in said.out
    finally:
        process("stop")


def test_a_second_start_replaces_the_server(site: Path, running: int) -> None:
    said = process("start", "--json")
    assert [event["event"] for event in said.events()] == [
        "replacing", "stopping", "stopped", "spawned", "ready"
    ]  # fmt: skip
    assert not alive(running)


def test_stop_ends_it_and_stopping_twice_is_fine(site: Path, running: int) -> None:
    assert process("stop").status == 0
    assert not alive(running)
    assert status_of(site) is None
    again = process("stop", "--json")
    assert again.status == 0
    assert again.events() == [{"event": "not_running"}]


def test_a_hanging_server_is_killed_with_a_word(site: Path, running: int) -> None:
    os.kill(running, signal.SIGSTOP)
    said = process("stop", "--timeout", "0.2")
    assert said.status == 0
    assert "was killed" in said.err
    assert not alive(running)


def test_a_program_that_has_the_port_is_named_and_left_alone(site: Path) -> None:
    listen = configs.load(site / "hubpin.yaml").listen
    with socket.create_server((listen.host, listen.port)):
        said = process("start")
        assert said.status == 1
        assert f"pid {os.getpid()}" in said.err
        assert "is taken by" in said.err
    assert not (site / "hubpin-data" / "server.json").exists()


def test_a_record_of_another_process_ends_nobody(site: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (site / "hubpin-data").mkdir()
        record = {"pid": bystander.pid, "ticks": 1, "boot": "x", "listen": "", "started": 0}
        (site / "hubpin-data" / "server.json").write_text(json.dumps(record))
        assert process("stop").status == 0
        assert process("start").status == 0
        assert process("stop").status == 0
        assert bystander.poll() is None
    finally:
        bystander.communicate()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_broken_record_is_no_record(site: Path, text: str) -> None:
    (site / "hubpin-data").mkdir()
    (site / "hubpin-data" / "server.json").write_text(text)
    assert process("stop", "--json").events() == [{"event": "not_running"}]


def test_a_server_that_does_not_start_shows_the_end_of_its_log(site: Path) -> None:
    (site / "allowlist.yaml").write_text("allow:\n  - broken\n")
    said = process("start")
    assert said.status == 1
    assert "allowlist.yaml:2" in said.err
    assert not (site / "hubpin-data" / "server.json").exists()


def test_a_server_in_the_foreground_is_not_ours_to_stop(site: Path) -> None:
    with (site / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-P", "-m", "proxy", "serve"], stderr=log)
    try:
        wait_ready(site)
        for command in ("start", "stop"):
            said = process(command)
            assert said.status == 1
            assert f"pid {server.pid}" in said.err
        assert server.poll() is None
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_a_second_server_on_the_same_data_is_wrong_input(site: Path, running: int) -> None:
    text = (site / "hubpin.yaml").read_text()
    other = site / "other.yaml"
    other.write_text(text.replace("listen: 127.0.0.1:", "listen: 127.0.0.2:"))
    said = process("-c", str(other), "serve")
    assert said.status == 2
    assert f"pid {running}" in said.err


def wait_ready(site: Path) -> None:
    listen = configs.load(site / "hubpin.yaml").listen
    for _ in range(1000):
        connection = http.client.HTTPConnection(listen.host, listen.port, timeout=5)
        try:
            connection.request("GET", "/-/ready")
            connection.getresponse().read()
            return
        except OSError:
            # The kernel refuses at once while nobody listens; this waits without a clock.
            subprocess.run([sys.executable, "-c", ""], check=True)
        finally:
            connection.close()
    raise AssertionError("the server never listened")
