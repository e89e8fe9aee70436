"""What a part file may be believed after a crash, and what a crash leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.errors import StoreError, StoreFull
from proxy.hub.names import Digest
from proxy.mirror import flock
from proxy.mirror.part import UNKNOWN, Part, Room, drop_sidecars, leftovers
from tests.mirror.bench import KB

DIGEST = Digest.of_hex("ab" * 32)
SIZE = 100 * KB
ROOM = Room(0)

_HOLD_PART = """
import sys
from pathlib import Path
from proxy.hub.names import Digest
from proxy.mirror.part import Part, Room
part = Part(Path(sys.argv[1]), Digest.of_hex("ab" * 32), 102400, Room(0))
part.write(0, b"x" * 4096)
part.wrote(0, 4096)
part.sync()
(Path(sys.argv[1]) / f"{'ab' * 32}.tmp").touch()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def part(spool: Path) -> Iterator[Part]:
    made = Part(spool, DIGEST, SIZE, ROOM)
    yield made
    made.close()


def open_again(part: Part, size: int = SIZE) -> Part:
    """As the next process does."""
    part.close()
    return Part(part.path.parent, DIGEST, size, ROOM)


def put(part: Part, start: int, stop: int) -> None:
    part.write(start, b"x" * (stop - start))
    part.wrote(start, stop)


def recorded(part: Part) -> dict[str, object]:
    held = json.loads(part.path.with_suffix(".json").read_bytes())
    assert isinstance(held, dict)
    return held


def test_a_new_part_has_its_full_size_and_nothing_in_it(part: Part) -> None:
    assert part.path.stat().st_size == SIZE
    assert part.path.stat().st_blocks * 512 >= SIZE, "its room is taken at once"
    assert list(part.have) == []
    assert part.exposed == 0


def test_what_was_synced_is_there_after_a_crash(part: Part) -> None:
    put(part, 0, 10)
    put(part, 50, 60)
    part.sync()
    assert list(open_again(part).have) == [(0, 10), (50, 60)]


def test_what_was_not_synced_is_not_believed(part: Part) -> None:
    put(part, 0, 10)
    part.sync()
    put(part, 10, 90)
    assert list(open_again(part).have) == [(0, 10)]


def test_the_sidecar_never_names_bytes_that_came_after_the_sync_began(part: Part) -> None:
    put(part, 0, 10)
    part.expose()
    assert recorded(part)["have"] == []
    part.sync()
    assert recorded(part)["have"] == [[0, 10]]


def test_a_part_that_is_kept_takes_no_room_for_what_did_not_come(part: Part) -> None:
    put(part, 0, 8 * KB)
    part.keep(exposed=0)
    assert part.path.stat().st_blocks * 512 <= 16 * KB
    again = open_again(part)
    assert list(again.have) == [(0, 8 * KB)]
    assert again.path.stat().st_size == SIZE
    again.close()


def test_a_sidecar_of_another_size_is_not_believed(part: Part) -> None:
    put(part, 0, 10)
    part.sync()
    again = open_again(part, SIZE + 1)
    assert list(again.have) == []
    again.close()


def test_a_file_that_is_shorter_than_its_sidecar_says_is_not_believed(part: Part) -> None:
    put(part, 0, 20 * KB)
    part.sync()
    os.truncate(part.path, 10 * KB)
    again = open_again(part)
    assert list(again.have) == []
    again.close()


def test_a_sidecar_without_its_file_is_not_believed(part: Part) -> None:
    put(part, 0, 10)
    part.sync()
    part.path.unlink()
    again = open_again(part)
    assert list(again.have) == []
    again.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"size": 102400}',
        b'{"size": 102400, "have": [[0, "x"]], "exposed": 0}',
        b'{"size": 102400, "have": [[0, 1e999]], "exposed": 0}',
        b'{"size": 102400, "have": 5, "exposed": 0}',
        b'{"size": 102400, "have": [], "exposed": 1e999}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_broken_sidecar_claims_nothing_and_excludes_nothing(spool: Path, content: bytes) -> None:
    (spool / f"{DIGEST.hex}.json").write_bytes(content)
    part = Part(spool, DIGEST, SIZE, ROOM)
    assert list(part.have) == []
    assert part.exposed == UNKNOWN
    part.close()


@pytest.mark.parametrize("have", [[[5, 5]], [[9, 5]], [[-1, 5]], [[0, SIZE + 1]]])
def test_ranges_that_cannot_be_are_not_believed(spool: Path, have: list[list[int]]) -> None:
    sidecar = {"size": SIZE, "have": have, "exposed": 7}
    (spool / f"{DIGEST.hex}.json").write_text(json.dumps(sidecar))
    part = Part(spool, DIGEST, SIZE, ROOM)
    assert list(part.have) == []
    assert part.exposed == 7
    part.close()


def test_that_clients_see_bytes_is_on_disk_before_they_do(part: Part) -> None:
    part.expose()
    assert recorded(part)["exposed"] == UNKNOWN
    again = open_again(part)
    assert again.exposed == UNKNOWN
    again.close()


def test_that_clients_see_bytes_outlives_a_sync(part: Part) -> None:
    part.expose()
    put(part, 0, 10)
    part.sync()
    assert recorded(part)["exposed"] == UNKNOWN


def test_how_far_clients_saw_is_known_after_an_orderly_end(part: Part) -> None:
    part.expose()
    put(part, 0, 10)
    part.keep(exposed=10)
    again = open_again(part)
    assert again.exposed == 10
    again.close()


def test_a_part_that_became_a_blob_leaves_nothing_behind(part: Part, spool: Path) -> None:
    part.path.unlink()  # as adopt does
    part.forget()
    part.expose()  # a reader was just about to
    assert os.listdir(spool) == []


def test_who_saw_bytes_that_proved_right_is_not_misled(part: Part, spool: Path) -> None:
    part.expose()
    put(part, 0, SIZE)
    part.sync()
    part.vouch()
    part.expose()  # a reader that comes late is shown right bytes, too
    part.close()
    assert leftovers(spool) == []
    again = open_again(part)
    assert list(again.have) == [(0, SIZE)]
    assert again.exposed == 0
    again.expose()  # and who comes now is shown what may be wrong by then
    again.close()
    assert leftovers(spool) == [DIGEST]


def test_if_it_cannot_be_written_down_that_bytes_were_right_they_count_as_wrong(
    part: Part, spool: Path
) -> None:
    part.expose()
    part.path.with_suffix(".tmp").mkdir()
    part.vouch()
    part.path.with_suffix(".tmp").rmdir()
    part.path.unlink()  # as adopt does
    part.close()
    assert leftovers(spool) == [DIGEST]


def test_a_part_that_was_thrown_away_leaves_nothing_behind(part: Part, spool: Path) -> None:
    part.discard()
    part.expose()
    assert os.listdir(spool) == []


def test_a_part_can_be_thrown_away_and_what_clients_saw_of_it_remembered(
    part: Part, spool: Path
) -> None:
    part.expose()
    part.discard(remember=True)
    assert leftovers(spool) == [DIGEST]


def test_if_it_cannot_be_written_down_that_clients_see_bytes_the_next_reader_is_told_too(
    part: Part,
) -> None:
    part.path.with_suffix(".tmp").mkdir()
    for _ in range(2):
        with pytest.raises(StoreError):
            part.expose()
    part.path.with_suffix(".tmp").rmdir()
    part.expose()
    assert recorded(part)["exposed"] == UNKNOWN


def test_a_part_has_one_holder(part: Part, spool: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(flock.Held):
            Part(spool, DIGEST, SIZE, ROOM)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_room_is_said_with_the_numbers_and_leaves_nothing(spool: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreFull) as caught:
        Part(spool, DIGEST, SIZE, Room(1 << 62))
    assert caught.value.need >= SIZE
    assert caught.value.keep_free == 1 << 62
    assert os.listdir(spool) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_reserved_already_needs_no_room_again(part: Part) -> None:
    put(part, 0, 10)
    part.sync()
    part.close()
    again = Part(part.path.parent, DIGEST, SIZE, Room(1 << 62))
    assert list(again.have) == [(0, 10)]
    again.close()


def test_an_unwritable_spool_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Part(tmp_path / "nothing", DIGEST, SIZE, ROOM)


def test_a_link_in_the_place_of_a_part_is_not_followed(spool: Path, tmp_path: Path) -> None:
    (spool / f"{DIGEST.hex}.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        Part(spool, DIGEST, SIZE, ROOM)
    assert not (tmp_path / "elsewhere").exists()


# --- the start of a server ------------------------------------------------------------------------


def test_half_states_are_cleaned_up_at_the_start(spool: Path, part: Part) -> None:
    put(part, 0, 10)
    part.sync()
    part.close()
    (spool / f"{'1' * 64}.tmp").touch()  # died while it wrote a sidecar
    (spool / f"{'2' * 64}.part").touch()  # died before it wrote the first one
    (spool / f"{'3' * 64}.json").write_text('{"size": 1, "have": [], "exposed": 0}')
    assert leftovers(spool) == []
    drop_sidecars(spool)
    assert sorted(os.listdir(spool)) == [f"{DIGEST.hex}.json", f"{DIGEST.hex}.part"]


def test_the_start_can_itself_be_broken_off_and_begun_again(spool: Path, part: Part) -> None:
    part.expose()
    part.close()
    assert leftovers(spool) == leftovers(spool) == [DIGEST]


def test_who_was_shown_bytes_of_a_download_that_is_gone_is_named(spool: Path) -> None:
    (spool / f"{DIGEST.hex}.json").write_text('{"size": 1, "have": [], "exposed": 5}')
    assert leftovers(spool) == [DIGEST]
    assert leftovers(spool) == [DIGEST], "until somebody else has written it down"
    drop_sidecars(spool)
    assert os.listdir(spool) == []


def test_files_that_are_not_ours_do_not_stop_the_start(spool: Path) -> None:
    (spool / "notes.json").write_text("hello")
    (spool / "UPPER.part").touch()
    os.mkfifo(spool / "pipe.part")
    assert leftovers(spool) == []


def test_what_another_process_works_on_is_left_alone(spool: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD_PART, spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert leftovers(spool) == []
        assert len(os.listdir(spool)) == 3, "its temporary file is about to be renamed"
        with pytest.raises(flock.Held):
            Part(spool, DIGEST, SIZE, ROOM)
        other.kill()
        other.wait(10)
    part = Part(spool, DIGEST, SIZE, ROOM)
    assert list(part.have) == [(0, 4096)]
    part.close()
    assert leftovers(spool) == []


def test_a_reader_that_stays_does_not_keep_the_part_locked(part: Part) -> None:
    put(part, 0, 10)
    reader = part.descriptor()
    part.keep(exposed=10)
    again = open_again(part)
    assert os.pread(reader, 10, 0) == b"x" * 10
    os.close(reader)
    again.close()
