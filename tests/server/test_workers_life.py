"""Several processes that answer as one: how they begin, die, come back and end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.mirror import MirrorProcess, Source
from tests.server.crew import BIG, PARTS, REPO, Crew, crew, gone, kill, until

HALF = 1 << 19
BIG_PATH = "/acme/big/resolve/main/big.bin"
FRONT = {"Range": "bytes=0-99"}  # waits for the verdict, so a death on the way cuts nothing off


@pytest.fixture
def team() -> Generator[Crew]:
    with crew(allow=(f"{REPO}@main", "acme/big@main")) as made:
        yield made


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def is_replaced(team: Crew, pid: int) -> bool:
    pids = team.pids()
    return len(pids) == 3 and pid not in pids


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        except OSError:
            return False
    return True


def test_a_worker_that_dies_leaves_its_download_and_comes_back(team: Crew) -> None:
    name = "part-0.bin"
    victim, other = team.workers
    for door in team.doors:
        door.file("config.json")
    before = team.main.metric("hubpin_requests_total", status="200")
    team.hub.hold(name, at=HALF)
    victim._connection.request("GET", f"/{REPO}/resolve/main/{name}", headers=FRONT)
    team.hub.wait(host="cdn", sent=HALF)
    kill(victim.pid)
    until("it is gone", lambda: gone(victim.pid))
    assert team.main.metric("hubpin_requests_total", status="200") >= before
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(door.file, name) for door in (team.main, other)]
        team.hub.release()
        assert [one.result().body for one in asked] == [PARTS[name].read(0, 1 << 20)] * 2
    assert team.hub.cdn_gets(name) == 1
    until("another one answers", lambda: is_replaced(team, victim.pid))
    team.open_doors()
    assert {door.file(name).status for door in team.doors} == {200}
    counted = [door.metric("hubpin_requests_total", status="200") for door in team.doors]
    assert counted == sorted(counted)
    assert counted[0] > before


def test_a_fetcher_that_dies_is_replaced_for_who_waits_anywhere(team: Crew) -> None:
    name = "part-1.bin"
    path = f"/{REPO}/resolve/main/{name}"
    team.hub.hold(name, at=HALF)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(door.ask, path, headers=FRONT) for door in team.doors]
        team.hub.wait(host="cdn", sent=HALF)
        kill(team.fetcher())
        team.hub.release()
        replies = [one.result() for one in asked]
    assert [(one.status, one.body) for one in replies] == [(206, PARTS[name].read(0, 100))] * 3
    assert team.hub.cdn_gets(name) == 2
    assert {door.file(name).body for door in team.doors} == {PARTS[name].read(0, 1 << 20)}


def test_when_the_main_process_is_killed_nobody_is_left(team: Crew) -> None:
    family = team.mirror.family()
    assert len(family) == 4  # and the fetcher
    kill(team.mirror.pid)
    until("all are gone", lambda: all(map(gone, family[1:])), timeout_s=5)
    team.mirror._process.wait()  # type: ignore[union-attr]  # it runs
    assert is_free(team.mirror.port)


def test_answers_under_way_are_finished_by_all_when_it_stops(team: Crew) -> None:
    team.main.ask(BIG_PATH)
    family = team.mirror.family()
    responses = [door.send(BIG_PATH) for door in team.doors]
    begun = [response.read(1000) for response in responses]
    team.mirror.signal(signal.SIGTERM)
    until("nobody listens", lambda: not listens(team.mirror.port))
    assert not any(map(gone, [door.pid for door in team.doors]))
    for first, response in zip(begun, responses, strict=True):
        assert first + response.read() == BIG.read(0, BIG.size)
    assert team.mirror._process is not None
    assert team.mirror._process.wait(10) == 0
    assert all(map(gone, family))
    assert is_free(team.mirror.port)


def test_a_worker_that_hangs_is_replaced_and_an_edit_takes_effect(team: Crew) -> None:
    victim, other = team.workers
    text = team.mirror.lock.read_text()
    os.kill(victim.pid, signal.SIGSTOP)
    team.mirror.lock.write_text(text.replace(other.commit(), "1" * 40))
    until("it is in force", lambda: other.commit() == team.main.commit() == "1" * 40)
    until("it is gone", lambda: gone(victim.pid))
    until("another one answers", lambda: is_replaced(team, victim.pid))
    team.open_doors()
    assert {door.commit() for door in team.doors} == {"1" * 40}


def test_a_port_that_somebody_shares_gladly_is_taken_all_the_same() -> None:
    """SO_REUSEPORT alone would let a stranger of the same user have some of the clients."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        mirror = MirrorProcess(
            [Source("http://127.0.0.1:9", token=False)],
            [],
            settings={"workers": "2", "listen": address},
        )
        try:
            mirror.begin()
            assert mirror._process is not None
            assert mirror._process.wait(30) == 1
            assert f"cannot listen on {address}: Address already in use" in mirror.log
            assert "Traceback" not in mirror.log
        finally:
            mirror.close()


def test_downloads_in_the_server_serve_its_workers_as_well() -> None:
    name = "part-2.bin"
    with crew(2, fetcher="false") as team:
        team.hub.hold(name, at=HALF)
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(door.file, name) for door in team.doors]
            team.hub.wait(host="cdn", sent=HALF)
            team.hub.release()
            assert [one.result().body for one in asked] == [PARTS[name].read(0, 1 << 20)] * 2
        assert team.hub.cdn_gets(name) == 1
        began = time.monotonic()
        team.mirror.signal(signal.SIGTERM)
        assert team.mirror._process is not None
        assert team.mirror._process.wait(30) == 0
        assert time.monotonic() - began < 5
        assert "Traceback" not in team.mirror.log
        assert "ERROR" not in team.mirror.log
