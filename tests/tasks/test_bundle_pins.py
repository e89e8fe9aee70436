"""What an import may change in the lock, and what it says about it before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import BundleInvalid, StoreError, UpstreamError
from proxy.hub.names import Pair
from proxy.pins import lock as locks
from proxy.pins.lock import Pin
from proxy.tasks import edit, lockfile
from proxy.tasks import import_ as importing
from proxy.tasks.export import export
from proxy.tasks.volumes import FileSink
from proxy.upstream.offline import OfflineUpstream
from tests.pins import examples
from tests.tasks.bundles import (
    FILES,
    empty_site,
    example,
    held,
    result,
    run_export,
    run_import,
    served,
    site_with,
)
from tests.tasks.conftest import collect

PAIR = "org/m@main"
NEWER = {**FILES, "model.bin": b"changed" * 1000}


async def bundle_of(folder: Path, *pins: tuple[Pin, Mapping[str, bytes]]) -> Path:
    await run_export(await site_with(folder / "near", *pins), folder / "site.hubpin")
    return folder / "site.hubpin"


@pytest.fixture
async def newer(tmp_path: Path) -> Path:
    """A bundle in which the pair has moved on."""
    pin, files = example(PAIR, NEWER, commit=examples.B)
    return await bundle_of(tmp_path, (replace(pin, date="2025-01-01T00:00:00.000Z"), files))


async def test_pins_are_reported_and_not_merged_unless_they_are_accepted(
    newer: Path, tmp_path: Path
) -> None:
    far = empty_site(tmp_path / "far")
    events = await run_import(far, newer, accept_pins=False)
    assert [one.pin.pair for one in events if isinstance(one, importing.New)] == [PAIR]
    finished = result(events)
    assert (finished.taken_files, finished.left_files, finished.pins_left) == (0, 3, 1)
    assert not far.config.lock.exists()
    assert await held(far) == set()


async def test_blobs_of_pins_that_the_lock_has_are_taken_without_asking(
    tmp_path: Path,
) -> None:
    file = await bundle_of(tmp_path, example(), example("org/other@main", {"a.bin": b"other"}))
    far = empty_site(tmp_path / "far")
    far.allow(f"- {PAIR}")
    far.config.lock.write_bytes(locks.dumps(examples.lock_of(example()[0])))
    finished = result(await run_import(far, file, accept_pins=False))
    assert (finished.taken_files, finished.left_files, finished.pins_left) == (3, 1, 1)
    assert await served(far) == {PAIR: FILES}


async def test_a_moved_pin_is_shown_with_what_changes(newer: Path, tmp_path: Path) -> None:
    far = await site_with(tmp_path / "far", example())
    events = await run_import(far, newer, accept_pins=False)
    (moved,) = [one for one in events if isinstance(one, importing.Moved)]
    assert (moved.old.commit, moved.pin.commit, moved.back) == (examples.A, examples.B, False)
    assert [new.path for _, new in moved.delta.changed] == ["model.bin"]
    assert await served(far) == {PAIR: FILES}


async def test_a_moved_pin_that_is_accepted_moves(newer: Path, tmp_path: Path) -> None:
    far = await site_with(tmp_path / "far", example())
    await run_import(far, newer)
    assert await served(far) == {PAIR: NEWER}
    assert far.lock().pins[Pair(PAIR)].commit == examples.B


async def test_a_pin_goes_back_only_by_force(newer: Path, tmp_path: Path) -> None:
    """Who replays an old bundle gets nowhere."""
    old = await bundle_of(tmp_path / "old", example())
    far = empty_site(tmp_path / "far")
    far.allow(f"- {PAIR}")
    await run_import(far, newer)
    with pytest.raises(UpstreamError, match="go back"):
        await run_import(far, old)
    assert await served(far) == {PAIR: NEWER}
    await run_import(far, old, force=True)
    assert await served(far) == {PAIR: FILES}


async def test_a_bundle_that_lists_other_bytes_for_a_commit_that_we_have_is_refused(
    tmp_path: Path,
) -> None:
    liar = await bundle_of(tmp_path, example(PAIR, NEWER))
    far = await site_with(tmp_path / "far", example())
    for accept_pins in (True, False):
        with pytest.raises(BundleInvalid, match=r"model\.bin: it lists other bytes"):
            await run_import(far, liar, accept_pins=accept_pins, force=True)
    assert await served(far) == {PAIR: FILES}


async def test_pins_of_other_pairs_stay_as_they_are(newer: Path, tmp_path: Path) -> None:
    far = await site_with(tmp_path / "far", example("org/other@v1", {"a": b"a"}))
    await run_import(far, newer)
    assert sorted(far.lock().pins) == [PAIR, "org/other@v1"]


async def test_a_lock_that_changed_meanwhile_is_not_overwritten(
    newer: Path, tmp_path: Path
) -> None:
    far = empty_site(tmp_path / "far")
    looked_at = await lockfile.read(far.config.lock)
    far.config.lock.write_bytes(locks.dumps(examples.lock_of(example()[0])))
    before = far.config.lock.read_bytes()
    pin = example(PAIR, NEWER, commit=examples.B)[0]
    with pytest.raises(StoreError, match="somebody else"):
        await lockfile.merge(far.config.lock, [pin], instead_of=looked_at)
    assert far.config.lock.read_bytes() == before


async def test_a_pair_that_is_not_allowed_here_is_named_as_it_was_allowed_there(
    tmp_path: Path,
) -> None:
    pin, files = example("org/m@v23", FILES)
    near = await site_with(tmp_path / "near", (pin, files))
    near.allow(
        "- repo: org/m\n  revision: v23\n  serve_as: [main]\n  notice: Be kind.\n"
        "  exclude: ['*.bin']\n  share: lan\n  aliases: [old/m]"
    )
    async with near.mirror(OfflineUpstream(), offline=True) as mirror:
        await collect(export(mirror, None, FileSink(tmp_path / "site.hubpin")))
    far = empty_site(tmp_path / "far")
    events = await run_import(far, tmp_path / "site.hubpin")
    (missing,) = [one.allowed for one in events if isinstance(one, importing.NotAllowed)]
    assert await served(far) == {}
    await edit.add(far.config.allowlist, missing)
    assert list(await served(far)) == ["org/m@v23"]
    async with far.mirror() as mirror:
        (allowed,) = mirror.catalog.allowlist.allowed
        assert (allowed.serve_as, allowed.notice, allowed.exclude, allowed.share_lan) == (
            ("main",), "Be kind.", ("*.bin",), True,
        )  # fmt: skip
        assert allowed.aliases == ("old/m",)


async def test_an_allowed_pair_is_served_as_soon_as_its_pin_is_merged(
    newer: Path, tmp_path: Path
) -> None:
    far = empty_site(tmp_path / "far")
    far.allow(f"- {PAIR}")
    events = await run_import(far, newer)
    assert not [one for one in events if isinstance(one, importing.NotAllowed)]
    assert await served(far) == {PAIR: NEWER}
