"""Bundles that were damaged, or made to harm, are refused whole."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import BundleInvalid, DigestMismatch, MirrorError, StoreFull
from proxy.tasks import bundle
from tests.tasks.bundles import (
    Archive,
    Member,
    empty_site,
    example,
    run_export,
    run_import,
    served,
    site_with,
)
from tests.tasks.conftest import Site

Harm = Callable[[Archive], None]


@pytest.fixture
async def honest(tmp_path: Path) -> Path:
    """A bundle as export writes it."""
    site = await site_with(tmp_path / "near", example())
    await run_export(site, tmp_path / "site.hubpin")
    return tmp_path / "site.hubpin"


@pytest.fixture
def far(tmp_path: Path) -> Site:
    return empty_site(tmp_path / "far")


async def check_refused(far: Site, file: Path, error: type[MirrorError], match: str) -> None:
    """Nothing of it is there afterwards: no pin, no spool file, nothing beside the site."""
    around = sorted(file.parent.iterdir())
    with pytest.raises(error, match=match):
        await run_import(far, file)
    assert not far.config.lock.exists()
    assert await served(far) == {}
    assert list((far.config.data / "spool").iterdir()) == []
    assert sorted(file.parent.iterdir()) == around
    with pytest.raises(error, match=match):
        await run_import(far, file, dry_run=True)


# --- members -------------------------------------------------------------------------------------


def _named(name: str) -> Harm:
    def harm(archive: Archive) -> None:
        archive.blobs[1] = replace(archive.blobs[1], name=name)

    return harm


def _typed(kind: bytes, linkname: str = "") -> Harm:
    def harm(archive: Archive) -> None:
        archive.blobs[1] = Member(archive.blobs[1].name, type=kind, linkname=linkname)

    return harm


def _extended(kind: bytes) -> Harm:
    def harm(archive: Archive) -> None:
        archive.blobs.insert(1, Member("pax", b"30 path=/etc/cron.d/evil-file\n", type=kind))

    return harm


def _sized(size: int) -> Harm:
    def harm(archive: Archive) -> None:
        archive.blobs[1] = replace(archive.blobs[1], size=size)

    return harm


def _twice(archive: Archive) -> None:
    archive.blobs.insert(1, archive.blobs[0])


def _twice_at_the_end(archive: Archive) -> None:
    archive.back.append(archive.blobs[0])


def _swapped(archive: Archive) -> None:
    archive.blobs.reverse()


def _left_out(archive: Archive) -> None:
    del archive.blobs[1]


def _manifest_later(archive: Archive) -> None:
    archive.front.append(archive.blobs.pop(0))


def _followed(archive: Archive) -> None:
    archive.end += b"more"


def _endless(archive: Archive) -> None:
    archive.end = b""


def _swollen(archive: Archive) -> None:
    archive.front.append(Member(bundle.MANIFEST, b"{}", size=bundle.MAX_MANIFEST + 1))


MEMBERS: dict[str, tuple[Harm, str]] = {
    "an absolute name": (_named("/etc/cron.d/evil"), "no bundle has such a name"),
    "a name with dots": (_named("blobs/sha256/../../../evil"), "no bundle has such a name"),
    "a name that only begins right": (_named(f"blobs/sha256/{'a' * 64}/x"), "such a name"),
    "a name with a line break": (_named(f"blobs/sha256/{'a' * 64}\n"), "such a name"),
    "a name in capitals": (_named(f"blobs/sha256/{'A' * 64}"), "such a name"),
    "another blob's name": (_named(f"blobs/sha256/{'a' * 64}"), "out of order"),
    "a symbolic link": (_typed(tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
    "a hard link": (_typed(tarfile.LNKTYPE, "/etc/passwd"), "a hard link"),
    "a character device": (_typed(tarfile.CHRTYPE), "a character device"),
    "a block device": (_typed(tarfile.BLKTYPE), "a block device"),
    "a FIFO": (_typed(tarfile.FIFOTYPE), "a FIFO"),
    "a folder": (_typed(tarfile.DIRTYPE), "a folder"),
    "a sparse file": (_typed(tarfile.GNUTYPE_SPARSE), "a sparse file"),
    "a pax header": (_extended(tarfile.XHDTYPE), "an extended header"),
    "a global pax header": (_extended(tarfile.XGLTYPE), "an extended header"),
    "a long GNU name": (_extended(tarfile.GNUTYPE_LONGNAME), "a long name"),
    "a kind that nobody knows": (_typed(b"?"), "unknown kind"),
    "a size beyond the manifest's": (_sized(1 << 50), "its manifest says"),
    "a size below the manifest's": (_sized(1), "its manifest says"),
    "a negative size": (_sized(-1), "negative size"),
    "a member twice": (_twice, "twice, extra or out of order"),
    "a member again at the end": (_twice_at_the_end, "more members than its manifest"),
    "members in another order": (_swapped, "out of order"),
    "a member left out": (_left_out, "should be"),
    "the manifest not first": (_manifest_later, "out of order"),
    "bytes after the end": (_followed, "more bytes"),
    "no end": (_endless, "cut short at the end"),
    "a manifest that is too big": (_swollen, "too many"),
}


@pytest.mark.parametrize("kind", MEMBERS)
async def test_an_archive_that_export_never_writes_is_refused(
    kind: str, honest: Path, far: Site
) -> None:
    harm, match = MEMBERS[kind]
    archive = Archive.read(honest)
    harm(archive)
    archive.write(honest)
    await check_refused(far, honest, BundleInvalid, match)


# --- the manifest --------------------------------------------------------------------------------


def _future(archive: Archive) -> None:
    archive.manifest["hubpin_bundle"] = 2


def _named_twice(archive: Archive) -> None:
    archive.listed.append(archive.listed[0])


def _needless(archive: Archive) -> None:
    archive.listed.append({"sha256": "e" * 64, "size": 1})


def _other_size(archive: Archive) -> None:
    archive.listed[0]["size"] = 1


def _two_sizes(archive: Archive) -> None:
    archive.files["model.bin"]["sha256"] = archive.files["config.json"]["sha256"]


def _climbing(archive: Archive) -> None:
    archive.files["../../evil"] = archive.files.pop("config.json")


def _edited(archive: Archive) -> None:
    archive.pin["fingerprint"] = f"sha256:{'0' * 64}"


def _deep(archive: Archive) -> None:
    inner: object = 0
    for _ in range(500):
        inner = [inner]
    archive.pin["info"] = {"deep": inner}


def _empty(archive: Archive) -> None:
    archive.manifest["lock"] = {"version": 1, "pins": {}}
    archive.manifest["blobs"], archive.manifest["allow"] = [], []


def _stranger(archive: Archive) -> None:
    archive.manifest["allow"] = [{"pair": "other/m@main"}]


MANIFESTS: dict[str, tuple[Harm, str]] = {
    "a later format": (_future, "use a newer hubpin"),
    "a blob listed twice": (_named_twice, "twice"),
    "a blob that no file has": (_needless, "no file of its lock has"),
    "another size than its lock": (_other_size, "in its lock"),
    "two sizes for one digest": (_two_sizes, "two sizes|do not add up"),
    "a path out of the repository": (_climbing, "not a valid path"),
    "a lock that was edited": (_edited, "edited it by hand"),
    "JSON nested deeply": (_deep, "nested too deeply"),
    "no pair": (_empty, "no pair"),
    "a pair that it does not lock": (_stranger, "does not lock it"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
async def test_a_manifest_that_makes_no_sense_is_refused(
    kind: str, honest: Path, far: Site
) -> None:
    harm, match = MANIFESTS[kind]
    archive = Archive.read(honest)
    harm(archive)
    archive.write(honest)
    await check_refused(far, honest, BundleInvalid, match)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"x"', b"[" * 100_000, b"\xff" * 50, b'{"hubpin_bundle": 1}']
)
async def test_a_manifest_that_is_none_is_refused(
    content: bytes, tmp_path: Path, far: Site
) -> None:
    file = tmp_path / "site.hubpin"
    file.write_bytes(Member(bundle.MANIFEST, content).dumps() + bundle.END)
    await check_refused(far, file, BundleInvalid, "makes no sense")


async def test_a_bundle_that_claims_to_be_huge_is_refused_before_it_is_read(
    honest: Path, far: Site
) -> None:
    archive = Archive.read(honest)
    archive.listed[1]["size"] = archive.files["model.bin"]["size"] = 1 << 60
    archive.write(honest)
    await check_refused(far, honest, StoreFull, "no room")


# --- bytes ---------------------------------------------------------------------------------------


async def test_a_flipped_bit_is_found_and_its_file_is_named(honest: Path, far: Site) -> None:
    content = bytearray(honest.read_bytes())
    content[content.index(b"weightsweights") + 3000] ^= 1
    honest.write_bytes(content)
    await check_refused(far, honest, DigestMismatch, r"org/m model\.bin")


async def test_a_blob_with_another_content_of_the_same_size_is_refused(
    honest: Path, far: Site
) -> None:
    archive = Archive.read(honest)
    archive.blobs[0] = replace(archive.blobs[0], content=b"[]")
    archive.write(honest)
    await check_refused(far, honest, DigestMismatch, r"config\.json")


async def test_a_bundle_that_is_cut_anywhere_is_refused(honest: Path, far: Site) -> None:
    whole = honest.read_bytes()
    for size in (0, 1, 511, 512, 900, len(whole) // 2, len(whole) - 1025, len(whole) - 1):
        honest.write_bytes(whole[:size])
        await check_refused(far, honest, BundleInvalid, "cut short|damaged")


@pytest.mark.parametrize("what", [b"PK\x03\x04", b"x" * 5000, bytes(5000)])
async def test_a_file_that_is_no_bundle_is_refused(what: bytes, tmp_path: Path, far: Site) -> None:
    (tmp_path / "site.hubpin").write_bytes(what)
    await check_refused(far, tmp_path / "site.hubpin", BundleInvalid, "no bundle|cut short")


async def test_a_compressed_bundle_is_no_bundle(honest: Path, far: Site) -> None:
    honest.write_bytes(gzip.compress(honest.read_bytes() * 50))
    await check_refused(far, honest, BundleInvalid, "no bundle|cut short")


async def test_a_wrong_git_id_is_refused_because_lock_would_believe_it(
    honest: Path, far: Site
) -> None:
    """A later lock takes the sha256 of a small file from any pin that has its git id."""
    archive = Archive.read(honest)
    archive.files["config.json"]["git_oid"] = "1" * 40
    archive.write(honest)
    await check_refused(far, honest, BundleInvalid, r"config\.json: git calls these bytes")
