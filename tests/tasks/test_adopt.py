"""Files that somebody has already seed the store, if they are what the lock says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.errors import ConfigError, Refused, StoreFull
from proxy.hub.names import Pair
from proxy.pins import lock as locks
from proxy.tasks import adopt
from proxy.tasks.adopt import Absent, Finished, Mismatched, from_folder, from_hf_cache
from proxy.upstream.offline import OfflineUpstream
from tests.pins import examples
from tests.tasks.bundles import FILES, empty_site, example, held, served
from tests.tasks.conftest import Site, collect

PAIR = "org/m@main"
PIN = example()[0]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site that locked a pair and holds nothing of it."""
    site = empty_site(tmp_path / "site")
    site.allow(f"- {PAIR}")
    site.config.lock.write_bytes(locks.dumps(examples.lock_of(PIN)))
    return site


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The right files, and one that the lock does not name."""
    folder = tmp_path / "share"
    for path, content in {**FILES, "notes.txt": b"mine"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A Hugging Face cache as huggingface_hub lays it out: links to blobs."""
    repo = tmp_path / "hub/models--org--m"
    (repo / "blobs").mkdir(parents=True)
    for path, content in FILES.items():
        entry = PIN.files[path]
        (repo / "blobs" / entry.etag).write_bytes(content)
        link = repo / "snapshots" / PIN.commit / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(repo / "blobs" / entry.etag, link.parent))
    return tmp_path / "hub"


async def take_folder(site: Site, folder: Path, pair: str = PAIR) -> list[adopt.Event]:
    async with site.mirror(OfflineUpstream(), offline=True) as mirror:
        return await collect(from_folder(mirror, folder, Pair(pair)))


async def take_cache(site: Site, cache: Path) -> list[adopt.Event]:
    async with site.mirror(OfflineUpstream(), offline=True) as mirror:
        return await collect(from_hf_cache(mirror, cache))


def finished(events: list[adopt.Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every plain file with its inode and its content."""
    return {
        str(file): (file.stat().st_ino, file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# --- a folder ------------------------------------------------------------------------------------


async def test_a_folder_with_the_right_files_is_adopted(site: Site, folder: Path) -> None:
    assert finished(await take_folder(site, folder)).adopted_files == 3
    assert await served(site) == {PAIR: FILES}


async def test_nothing_that_the_lock_does_not_name_is_taken(site: Site, folder: Path) -> None:
    await take_folder(site, folder)
    assert await held(site) == site.lock().digests()


async def test_the_files_stay_where_they_are(site: Site, folder: Path) -> None:
    before = state(folder)
    await take_folder(site, folder)
    assert state(folder) == before


async def test_a_file_with_other_bytes_is_named_and_the_rest_is_taken(
    site: Site, folder: Path
) -> None:
    (folder / "model.bin").write_bytes(b"WEIGHTS" * 1000)
    events = await take_folder(site, folder)
    (wrong,) = [one for one in events if isinstance(one, Mismatched)]
    assert wrong.entry.path == "model.bin"
    assert "the lock says sha256:" in wrong.problem
    assert (finished(events).adopted_files, finished(events).mismatched) == (2, 1)
    assert PIN.files["model.bin"].digest not in await held(site)


async def test_a_file_of_another_size_is_not_even_read(site: Site, folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"short")
    events = await take_folder(site, folder)
    (wrong,) = [one for one in events if isinstance(one, Mismatched)]
    assert wrong.problem == "it has 5 bytes, the lock says 7,000"


async def test_a_file_that_is_not_there_is_named(site: Site, folder: Path) -> None:
    (folder / "sub/vocab.txt").unlink()
    events = await take_folder(site, folder)
    assert [one.entry.path for one in events if isinstance(one, Absent)] == ["sub/vocab.txt"]
    assert finished(events).absent == 1


async def test_adopting_twice_takes_nothing_twice(site: Site, folder: Path) -> None:
    await take_folder(site, folder)
    last = finished(await take_folder(site, folder))
    assert (last.adopted_files, last.held_files) == (0, 3)


async def test_a_pair_that_is_not_locked_cannot_be_adopted(site: Site, folder: Path) -> None:
    with pytest.raises(Refused):
        await take_folder(site, folder, "org/m@v2")


async def test_a_folder_that_does_not_exist_is_an_error(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        await take_folder(site, tmp_path / "nothing")


async def test_a_link_out_of_the_folder_is_not_followed(
    site: Site, folder: Path, tmp_path: Path
) -> None:
    """Not even to the right bytes."""
    (tmp_path / "elsewhere").write_bytes(FILES["model.bin"])
    (folder / "model.bin").unlink()
    (folder / "model.bin").symlink_to(tmp_path / "elsewhere")
    events = await take_folder(site, folder)
    (wrong,) = [one for one in events if isinstance(one, Mismatched)]
    assert "leads out" in wrong.problem


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "dangling link", "socket"])
async def test_what_is_not_a_plain_file_is_not_taken(kind: str, site: Site, folder: Path) -> None:
    place = folder / "model.bin"
    place.unlink()
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "loop":
            place.symlink_to(place.name)
        case "dangling link":
            place.symlink_to("gone")
        case "socket":
            os.mknod(place, 0o140644)  # S_IFSOCK
    events = await take_folder(site, folder)
    assert [one.entry.path for one in events if isinstance(one, Mismatched)] == ["model.bin"]
    assert finished(events).adopted_files == 2
    assert not list((site.config.data / "spool").iterdir())


async def test_what_does_not_fit_is_refused_before_it_is_copied(site: Site, folder: Path) -> None:
    object.__setattr__(site.config, "keep_free", 1 << 60)
    with pytest.raises(StoreFull):
        await take_folder(site, folder)
    assert await held(site) == set()


# --- a Hugging Face cache ------------------------------------------------------------------------


async def test_a_cache_is_adopted_through_its_links(site: Site, cache: Path) -> None:
    before = state(cache)
    assert finished(await take_cache(site, cache)).adopted_files == 3
    assert await served(site) == {PAIR: FILES}
    assert state(cache) == before


async def test_a_cache_without_links_is_adopted(site: Site, cache: Path) -> None:
    """As on Windows without the right to make links."""
    for path, content in FILES.items():
        link = cache / "models--org--m/snapshots" / PIN.commit / path
        link.unlink()
        link.write_bytes(content)
    for blob in (cache / "models--org--m/blobs").iterdir():
        blob.unlink()
    assert finished(await take_cache(site, cache)).adopted_files == 3


async def test_a_blob_counts_at_another_commit_of_the_cache(site: Site, cache: Path) -> None:
    snapshots = cache / "models--org--m/snapshots"
    (snapshots / PIN.commit).rename(snapshots / examples.B)
    assert finished(await take_cache(site, cache)).adopted_files == 3


async def test_a_cache_that_was_changed_is_named_once(site: Site, cache: Path) -> None:
    etag = PIN.files["model.bin"].etag
    (cache / "models--org--m/blobs" / etag).write_bytes(b"WEIGHTS" * 1000)
    events = await take_cache(site, cache)
    assert [one.entry.path for one in events if isinstance(one, Mismatched)] == ["model.bin"]
    assert finished(events).adopted_files == 2


async def test_a_bad_snapshot_does_not_hide_a_good_blob(site: Site, cache: Path) -> None:
    link = cache / "models--org--m/snapshots" / PIN.commit / "model.bin"
    link.unlink()
    link.write_bytes(b"WEIGHTS" * 1000)
    events = await take_cache(site, cache)
    assert not [one for one in events if isinstance(one, Mismatched)]
    assert finished(events).adopted_files == 3


async def test_a_link_out_of_the_cache_is_not_followed(
    site: Site, cache: Path, tmp_path: Path
) -> None:
    blob = cache / "models--org--m/blobs" / PIN.files["model.bin"].etag
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    events = await take_cache(site, cache)
    (wrong,) = [one for one in events if isinstance(one, Mismatched)]
    assert "leads out" in wrong.problem


async def test_a_cache_without_the_repository_gives_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    last = finished(await take_cache(site, tmp_path / "hub"))
    assert (last.adopted_files, last.absent, last.mismatched) == (0, 3, 0)
