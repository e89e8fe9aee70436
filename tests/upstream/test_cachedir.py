"""An existing Hugging Face cache directory as an upstream."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from proxy.errors import UpstreamMissing, UpstreamUnavailable
from proxy.hub.names import RepoId, Revision
from proxy.hub.wire import RefKind
from proxy.upstream import card
from proxy.upstream.cachedir import CacheDirUpstream
from tests.fakes.world import lfs, regular
from tests.upstream.contract import (
    FILES,
    MAIN,
    REPO,
    UpstreamContract,
    located,
    read,
    world,
)

COMMIT = world().repos[REPO].at().sha
README = located("README.md")


def cached(root: Path, *, links: bool = True) -> Path:
    """The contract's world as huggingface_hub would have cached it; the repository's folder."""
    folder = root / "models--acme--tiny"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    for path, file in FILES.items():
        place = folder / "snapshots" / COMMIT / path
        place.parent.mkdir(parents=True, exist_ok=True)
        content = file.content.read(0, file.size)
        if not links:
            place.write_bytes(content)
            continue
        blob = folder / "blobs" / file.etag
        blob.write_bytes(content)
        place.symlink_to(os.path.relpath(blob, place.parent))
    return folder


@pytest.fixture
def upstream(tmp_path: Path) -> CacheDirUpstream:
    cached(tmp_path / "hub")
    return CacheDirUpstream(tmp_path / "hub")


@pytest.fixture
def folder(tmp_path: Path, upstream: CacheDirUpstream) -> Path:
    return tmp_path / "hub" / "models--acme--tiny"


class TestCacheDir(UpstreamContract):
    """The contract, with links to blobs."""


class TestCacheDirWithoutLinks(UpstreamContract):
    """The contract, as it lies on a disk that has no links."""

    @pytest.fixture
    def upstream(self, tmp_path: Path) -> CacheDirUpstream:
        cached(tmp_path, links=False)
        return CacheDirUpstream(tmp_path)


class TestInfo:
    async def test_the_card_describes_the_repository(self, upstream: CacheDirUpstream) -> None:
        info = await upstream.info(REPO, MAIN)
        assert info.license == "mit"
        assert info.raw["cardData"] == {"license": "mit"}
        for key in ("private", "gated", "downloads", "likes", "tags", "_id", "lastModified"):
            assert key in info.raw

    async def test_a_better_description_beside_the_snapshots_wins(
        self, upstream: CacheDirUpstream, folder: Path
    ) -> None:
        better = {"id": "x/y", "sha": "z", "likes": 7, "lastModified": "2024-05-06T07:08:09.000Z"}
        (folder / "info.json").write_text(json.dumps(better))
        info = await upstream.info(REPO, MAIN)
        assert (info.raw["id"], info.commit) == ("acme/tiny", COMMIT)
        assert (info.raw["likes"], info.date) == (7, "2024-05-06T07:08:09.000Z")

    async def test_a_broken_description_is_ignored(
        self, upstream: CacheDirUpstream, folder: Path
    ) -> None:
        (folder / "info.json").write_text("[" * 100_000)
        assert (await upstream.info(REPO, MAIN)).raw["likes"] == 0

    async def test_a_shortened_commit_is_found(self, upstream: CacheDirUpstream) -> None:
        info = await upstream.info(REPO, Revision(COMMIT[:8]))
        assert (info.commit, info.kind) == (COMMIT, RefKind.COMMIT)

    async def test_a_pull_request_is_found(self, upstream: CacheDirUpstream, folder: Path) -> None:
        (folder / "refs/refs/pr").mkdir(parents=True)
        (folder / "refs/refs/pr/1").write_text(COMMIT + "\n")
        info = await upstream.info(REPO, Revision("refs/pr/1"))
        assert (info.commit, info.kind) == (COMMIT, RefKind.PULL)

    async def test_a_ref_that_holds_no_commit_is_reported(
        self, upstream: CacheDirUpstream, folder: Path
    ) -> None:
        (folder / "refs/main").write_text("../../../etc/passwd")
        with pytest.raises(UpstreamUnavailable, match="refs/main"):
            await upstream.info(REPO, MAIN)

    async def test_a_ref_to_a_commit_that_was_deleted_is_missing(
        self, upstream: CacheDirUpstream, folder: Path
    ) -> None:
        (folder / "refs/main").write_text("a" * 40)
        with pytest.raises(UpstreamMissing, match="a" * 40):
            await upstream.info(REPO, MAIN)

    async def test_datasets_and_bare_names_have_their_own_folders(self, tmp_path: Path) -> None:
        for name in ("datasets--acme--d", "models--gpt2"):
            (tmp_path / name / "snapshots" / COMMIT).mkdir(parents=True)
        upstream = CacheDirUpstream(tmp_path)
        for repo in (RepoId("datasets/acme/d"), RepoId("gpt2")):
            info = await upstream.info(repo, Revision(COMMIT))
            assert info.raw["id"] == repo.name

    async def test_a_disk_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UpstreamUnavailable, match="nothing-here"):
            await CacheDirUpstream(tmp_path / "nothing-here").info(REPO, MAIN)


class TestSafety:
    @pytest.fixture
    def secret(self, tmp_path: Path) -> Path:
        made = tmp_path / "secret"
        made.write_text("not yours")
        return made

    def replace(self, folder: Path, target: Path | str) -> None:
        place = folder / "snapshots" / COMMIT / README.path
        place.unlink()
        place.symlink_to(target)

    async def test_a_link_out_of_the_cache_is_not_followed(
        self, upstream: CacheDirUpstream, folder: Path, secret: Path
    ) -> None:
        self.replace(folder, secret)
        with pytest.raises(UpstreamUnavailable, match="out of the directory"):
            await read(upstream, README)
        with pytest.raises(UpstreamUnavailable, match="out of the directory"):
            _ = [entry async for entry in upstream.tree(REPO, COMMIT)]

    async def test_a_blob_that_is_a_link_out_is_not_followed(
        self, upstream: CacheDirUpstream, folder: Path, secret: Path
    ) -> None:
        blob = folder / "blobs" / FILES[README.path].etag
        blob.unlink()
        blob.symlink_to(secret)
        with pytest.raises(UpstreamUnavailable, match="out of the directory"):
            await read(upstream, README)

    async def test_a_folder_that_is_a_link_out_is_not_entered(
        self, upstream: CacheDirUpstream, folder: Path, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (folder / "snapshots" / COMMIT / "link").symlink_to(outside)
        with pytest.raises(UpstreamUnavailable):
            _ = [entry async for entry in upstream.tree(REPO, COMMIT)]
        snapshots = folder / "snapshots"
        snapshots.rename(outside / "snapshots")
        snapshots.symlink_to(outside / "snapshots")
        with pytest.raises(UpstreamMissing):
            await read(upstream, README)

    async def test_a_fifo_is_not_waited_for(self, upstream: CacheDirUpstream, folder: Path) -> None:
        place = folder / "snapshots" / COMMIT / README.path
        place.unlink()
        os.mkfifo(place)
        with pytest.raises(UpstreamUnavailable, match="plain file"):
            await read(upstream, README)
        with pytest.raises(UpstreamUnavailable, match="plain file"):
            _ = [entry async for entry in upstream.tree(REPO, COMMIT)]

    async def test_a_loop_of_links_ends(self, upstream: CacheDirUpstream, folder: Path) -> None:
        self.replace(folder, README.path)
        with pytest.raises(UpstreamUnavailable, match="loop"):
            await read(upstream, README)

    async def test_a_blob_that_was_deleted_is_missing(
        self, upstream: CacheDirUpstream, folder: Path
    ) -> None:
        (folder / "blobs" / FILES[README.path].etag).unlink()
        with pytest.raises(UpstreamMissing):
            await read(upstream, README)
        with pytest.raises(UpstreamUnavailable, match=README.path):
            _ = [entry async for entry in upstream.tree(REPO, COMMIT)]

    async def test_a_name_that_cannot_be_condemns_the_tree(
        self, upstream: CacheDirUpstream, folder: Path
    ) -> None:
        (folder / "snapshots" / COMMIT / "a\\b").touch()
        with pytest.raises(UpstreamUnavailable, match="backslash"):
            _ = [entry async for entry in upstream.tree(REPO, COMMIT)]


async def test_a_large_plain_file_counts_as_lfs(tmp_path: Path) -> None:
    place = cached(tmp_path, links=False) / "snapshots" / COMMIT
    content = bytes((10 << 20) + 1)
    (place / "large.txt").write_bytes(content)
    (place / "small.txt").write_bytes(b"small")
    listed = {entry.path: entry async for entry in CacheDirUpstream(tmp_path).tree(REPO, COMMIT)}
    assert listed[located("README.md").path].lfs is None
    large, small = lfs(content), regular("small")
    by_name = {str(path): entry for path, entry in listed.items()}
    assert (by_name["large.txt"].lfs, by_name["large.txt"].git_oid) == (large.digest, large.git_oid)
    assert (by_name["small.txt"].lfs, by_name["small.txt"].git_oid) == (None, small.git_oid)


class TestCard:
    def test_front_matter_becomes_json(self) -> None:
        text = "---\nlicense: mit\nday: 2024-01-02\nn: [1, 2.5, .inf, true, null]\n---\nprose\n"
        assert card.parse(text.encode()) == {
            "license": "mit",
            "day": "2024-01-02",
            "n": [1, 2.5, "inf", True, None],
        }

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "# no front matter",
            "---\nlicense: mit\n",
            "---\n- a\n- list\n---\n",
            "---\na: [\n---\n",
            "---\nday: 2024-99-99\n---\n",
            "---\na: !!python/object/apply:os.system [true]\n---\n",
            "---\na: &x [1]\nb: *x\n---\n",
            "---\na: " + "[" * 5000 + "\n---\n",
            "---\na: " + "9" * 5000 + "\n---\n",
            "---\n\x00: 1\n---\n",
            "---\n? {a: 1}\n: 2\n---\n",
        ],
    )
    def test_what_cannot_be_read_says_nothing(self, text: str) -> None:
        assert card.parse(text.encode()) == {}

    def test_tags_are_those_that_the_hub_would_show(self) -> None:
        front: dict[str, object] = {
            "tags": ["a", 3, "b", "a"],
            "library_name": "lib",
            "pipeline_tag": "task",
            "license": "mit",
        }
        assert card.tags(front) == ["a", "b", "lib", "task", "license:mit"]
