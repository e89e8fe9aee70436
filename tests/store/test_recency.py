"""Hints of last use: lost without harm, and never code or a file, whatever the index holds."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.hub.names import Digest
from proxy.store.recency import Recency

ONE = Digest.of_hex("1" * 64)
OTHER = Digest.of_hex("2" * 64)
LONG_AGO = 1_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index-v1"


@pytest.fixture
def recency(folder: Path) -> Iterator[Recency]:
    made = Recency(folder)
    yield made
    made.close()


def written(folder: Path, *digests: Digest) -> Path:
    """The database of an index that holds these, on disk."""
    before = Recency(folder)
    for digest in digests:
        before.touch(digest)
    before.close()
    return folder / "cache.db"


def execute(database: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement, values)


def test_what_was_never_served_was_served_at_0(recency: Recency) -> None:
    assert recency.last_served(ONE) == 0.0


def test_what_is_served_now_is_known_at_once_and_after_a_restart(folder: Path) -> None:
    before = time.time()
    written(folder, ONE)
    recency = Recency(folder)
    assert before <= recency.last_served(ONE) <= time.time()
    assert recency.last_served(OTHER) == 0.0
    recency.close()


def test_a_later_use_replaces_an_earlier_one(folder: Path) -> None:
    database = written(folder, ONE)
    execute(database, "UPDATE Cache SET value = ?", LONG_AGO)
    written(folder, ONE)
    recency = Recency(folder)
    assert recency.last_served(ONE) > LONG_AGO
    recency.close()


def test_the_index_is_ours_alone(folder: Path) -> None:
    written(folder, ONE)
    assert folder.stat().st_mode & 0o077 == 0


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._file,)


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
@pytest.mark.parametrize("raw", [0, 1])
def test_a_planted_row_is_never_code(folder: Path, tmp_path: Path, mode: int, raw: int) -> None:
    database, canary = written(folder, ONE), tmp_path / "canary"
    bomb = pickle.dumps(Bomb(canary))
    execute(database, "UPDATE Cache SET mode = ?, value = ?, raw = ?", mode, bomb, raw)
    recency = Recency(folder)
    assert recency.last_served(ONE) == 0.0
    recency.touch(ONE)
    recency.flush()
    assert recency.last_served(ONE) > 0.0
    recency.close()
    assert not canary.exists()


def test_a_planted_key_is_never_code(folder: Path, tmp_path: Path) -> None:
    database, canary = written(folder, ONE), tmp_path / "canary"
    bomb = pickle.dumps(Bomb(canary))
    execute(database, "UPDATE Cache SET key = ?, raw = 0", bomb)
    recency = Recency(folder)
    assert recency.last_served(ONE) == 0.0
    recency.touch(OTHER)
    recency.close()
    assert not canary.exists()


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
def test_a_planted_file_name_is_never_read(folder: Path, tmp_path: Path, mode: int) -> None:
    database, secret = written(folder, ONE), tmp_path / "secret"
    secret.write_text("12345.0")
    execute(database, "UPDATE Cache SET mode = ?, filename = ?, value = NULL", mode, "../secret")
    recency = Recency(folder)
    assert recency.last_served(ONE) == 0.0
    recency.close()


def test_a_planted_file_name_is_never_deleted(folder: Path, tmp_path: Path) -> None:
    database, precious = written(folder, ONE), tmp_path / "precious"
    precious.touch()
    execute(database, "UPDATE Cache SET filename = ?", "../precious")
    written(folder, ONE)  # replaces the row
    assert precious.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("disk_surprise", 1), ("_disk", "x"), ("get", 5), ("disk_min_file_size", "x"), ("x", None)],
)
def test_planted_settings_cost_hints_at_most(folder: Path, key: str, value: object) -> None:
    database = written(folder, ONE)
    execute(database, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", key, value)
    recency = Recency(folder)
    assert recency.last_served(ONE) >= 0.0
    recency.touch(OTHER)
    recency.flush()
    recency.touch(OTHER)
    recency.close()
    again = Recency(folder)
    assert again.last_served(OTHER) > 0.0
    again.close()


@pytest.mark.parametrize("rubbish", [b"", b"rubbish" * 1000])
def test_a_broken_index_is_begun_anew(folder: Path, rubbish: bytes) -> None:
    written(folder, ONE).write_bytes(rubbish)
    recency = Recency(folder)
    assert recency.last_served(ONE) == 0.0
    recency.touch(OTHER)
    recency.close()
    again = Recency(folder)
    assert again.last_served(OTHER) > 0.0
    again.close()


def test_an_index_that_cannot_be_written_costs_the_hints_only(tmp_path: Path) -> None:
    (tmp_path / "index-v1").write_text("in the way")
    recency = Recency(tmp_path / "index-v1")
    recency.touch(ONE)
    recency.flush()
    assert recency.last_served(ONE) == 0.0
    recency.close()


def test_closing_twice_is_fine(recency: Recency) -> None:
    recency.touch(ONE)
    recency.close()
    recency.close()


async def test_hints_are_written_down_when_the_server_stops(folder: Path) -> None:
    recency = Recency(folder)
    writing = asyncio.create_task(recency.keep_writing())
    await asyncio.sleep(0)
    recency.touch(ONE)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    other = Recency(folder)
    assert other.last_served(ONE) > 0.0
    other.close()
    recency.close()
