"""Several processes that answer as one: downloads, catalogs, numbers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.crew import PARTS, REPO, Crew, Door, crew, until

SWITCHES = 8


@pytest.fixture(scope="module")
def running() -> Generator[Crew]:
    with crew() as made:
        yield made


@pytest.fixture
def team(running: Crew) -> Crew:
    running.open_doors()
    return running


def test_all_processes_are_reached_and_counted(team: Crew) -> None:
    assert len({door.pid for door in team.doors}) == 3
    assert team.main.metric("hubpin_workers") == 3


def test_a_cold_file_asked_of_all_at_once_is_fetched_once(team: Crew) -> None:
    name = "part-0.bin"
    before = [team.main.metric(one) for one in ("hubpin_fills_total", "hubpin_filled_bytes_total")]
    team.hub.reset()
    team.hub.hold(name, at=1 << 19)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(door.file, name) for door in team.doors]
        team.hub.wait(host="cdn", sent=1 << 19)
        team.hub.release()
        replies = [one.result() for one in asked]
    assert [reply.body for reply in replies] == [PARTS[name].read(0, 1 << 20)] * 3
    assert team.hub.cdn_gets(name) == 1
    until("it is reported", lambda: team.main.metric("hubpin_fills_total") > before[0])
    after = [team.main.metric(one) for one in ("hubpin_fills_total", "hubpin_filled_bytes_total")]
    assert after == [before[0] + 1, before[1] + (1 << 20)]


def test_a_download_and_who_took_it_are_written_down_once_each(team: Crew) -> None:
    name = "part-1.bin"
    for door in team.doors:
        door.file(name)

    def events(kind: str) -> list[object]:
        lines = (team.mirror.data / "audit.jsonl").read_text().splitlines()
        return [
            one for one in map(json.loads, lines) if one["event"] == kind and one["path"] == name
        ]

    until("all have written", lambda: len(events("served")) == 3)
    assert len(events("fetched")) == 1


def test_what_is_counted_anywhere_is_told_by_all_and_added_up(team: Crew) -> None:
    first, *_ = team.doors
    before = first.metric("hubpin_requests_total", status="200")
    sent = first.metric("hubpin_sent_bytes_total")
    for number in range(30):
        assert team.doors[number % 3].file("config.json").status == 200
    expected = before + 30 + 2  # the two answers with metrics before, and one more with each
    for number, door in enumerate(team.doors):
        assert door.metric("hubpin_requests_total", status="200") == expected + number
    for door in team.doors:
        assert door.metric("hubpin_sent_bytes_total") == sent + 30 * len(b"{}")
        assert door.metric("hubpin_connections") == 3


def test_all_say_the_same_about_the_mirror(team: Crew) -> None:
    said = [door.ask("/-/status").json for door in team.doors]
    for one in said:
        del one["uptime_s"], one["disk"]["free"]
    assert said[0] == said[1] == said[2]
    assert said[0]["pid"] == team.mirror.pid
    assert sorted(said[0]["workers"]) == sorted(door.pid for door in team.doors)
    for path in ("/-/lock", "/-/ready", f"/-/sums/{REPO}@main"):
        assert len({door.ask(path).body for door in team.doors}) == 1


def test_a_catalog_is_in_force_everywhere_at_one_moment(team: Crew) -> None:
    """Who asks after somebody saw the new one gets the new one, from every process."""
    text = team.mirror.lock.read_text()
    first = team.main.commit()
    commits = [f"{number:040x}" for number in range(1, SWITCHES + 1)]
    seen: list[tuple[float, float, str]] = []
    ended = threading.Event()

    def look(door: Door) -> None:
        while not ended.is_set():
            began = time.monotonic()
            commit = door.commit()
            seen.append((began, time.monotonic(), commit))

    took = []
    try:
        with ThreadPoolExecutor(3) as pool:
            looking = [pool.submit(look, door) for door in team.doors]
            try:
                for commit in commits:
                    team.mirror.lock.write_text(text.replace(first, commit))
                    took.append(until("it is in force", lambda: seen[-1][2] == commit))  # noqa: B023
            finally:
                ended.set()
            for one in looking:
                one.result()
    finally:
        team.mirror.lock.write_text(text)
    until("as before", lambda: {door.commit() for door in team.doors} == {first})
    order = [first, *commits]
    newest = 0
    for end, number in sorted((end, order.index(commit)) for _, end, commit in tuple(seen)):
        late = [one for one in seen if one[0] > end and order.index(one[2]) < number]
        assert number <= newest or not late, f"{late} after {order[number]}"
        newest = max(newest, number)
    assert newest == SWITCHES
    assert sorted(took)[SWITCHES // 2] < 2


def test_a_broken_edit_changes_nothing_anywhere(team: Crew) -> None:
    text = team.mirror.lock.read_text()
    before = team.main.commit()
    team.mirror.lock.write_text("{")
    until("it is noticed", lambda: team.workers[0].ask("/-/status").json["catalog_error"])
    assert [door.commit() for door in team.doors] == [before] * 3
    assert {door.metric("hubpin_catalog_stale") for door in team.doors} == {1.0}
    team.mirror.lock.write_text(text)
    until("it is mended", lambda: not team.main.ask("/-/status").json["catalog_error"])


def test_a_pair_is_locked_for_whoever_asks_any_process(team: Crew) -> None:
    """Nobody hears that it is allowed and not locked: the answer waits."""
    pairs = [f"acme/late-{number}" for number in range(3)]
    team.hub.set(latency_s=0.3)
    team.mirror.allow(f"{REPO}@main", *(f"{pair}@main" for pair in pairs))

    def first_answer(door: Door, pair: str) -> int:
        while True:
            reply = door.file("config.json", pair)
            if reply.headers.get("x-error-code") != "RepoNotFound":
                return reply.status

    try:
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(first_answer, team.doors, pairs)) == [200] * 3
    finally:
        team.hub.set(latency_s=0.0)


def test_an_upstream_that_lies_is_told_as_by_one_process(team: Crew) -> None:
    team.hub.fault("U16", path="part-2.bin")
    try:
        for door in team.doors:
            assert (
                door.ask(
                    f"/{REPO}/resolve/main/part-2.bin", headers={"Range": "bytes=0-9"}
                ).headers["x-error-code"]
                == "IntegrityError"
            )
        assert team.workers[0].metric("hubpin_integrity_failures_total", source="upstream") == 3
    finally:
        team.hub.heal()
