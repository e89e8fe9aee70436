"""What every upstream must do. A kind of upstream inherits this, and gets all its tests."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from proxy.errors import UpstreamMissing
from proxy.hub.names import CommitSha, RepoId, RepoPath, Revision
from proxy.hub.wire import TreeEntry
from proxy.upstream.base import Located, Upstream
from tests.fakes.world import File, Repo, World, lfs, regular

REPO = RepoId("acme/tiny")
MAIN = Revision("main")
FILES: dict[str, File] = {
    "README.md": regular("---\nlicense: mit\n---\n# Tiny\n"),
    "empty.txt": regular(""),
    "sub/a#b?c%20d+e é.txt": regular("a name with everything\n"),
    "sub/deep/model.safetensors": lfs(bytes(range(256)) * 4000),
}
NOWHERE = CommitSha("f" * 40)


def world() -> World:
    made = World()
    made.repo(REPO).commit(FILES)
    return made


def located(path: str, file: File | None = None, *, repo: Repo | None = None) -> Located:
    """A file of the contract's world, or of another repository."""
    held = repo or world().repos[REPO]
    file = file or FILES[path]
    lfs_digest = file.digest if file.lfs else None
    return TreeEntry(held.id, held.at().sha, RepoPath(path), file.size, file.git_oid, lfs_digest)


async def read(upstream: Upstream, file: Located, start: int = 0, stop: int | None = None) -> bytes:
    got = b""
    async with aclosing(upstream.fetch(file, start, file.size if stop is None else stop)) as body:
        async for chunk in body:
            assert chunk, "an empty chunk looks like an end"
            got += chunk
    return got


class UpstreamContract:
    """Needs a fixture `upstream` that holds `world()`."""

    COMMIT = world().repos[REPO].at().sha

    async def test_a_branch_means_a_commit(self, upstream: Upstream) -> None:
        info = await upstream.info(REPO, MAIN)
        assert info.commit == self.COMMIT
        assert info.raw["id"] == "acme/tiny"
        assert info.restricted == ""

    async def test_a_commit_means_itself(self, upstream: Upstream) -> None:
        info = await upstream.info(REPO, Revision(self.COMMIT))
        assert info.commit == self.COMMIT

    async def test_the_same_question_gets_the_same_answer(self, upstream: Upstream) -> None:
        assert await upstream.info(REPO, MAIN) == await upstream.info(REPO, MAIN)

    async def test_an_unknown_repository_is_missing(self, upstream: Upstream) -> None:
        with pytest.raises(UpstreamMissing):
            await upstream.info(RepoId("acme/other"), MAIN)

    async def test_an_unknown_revision_is_missing(self, upstream: Upstream) -> None:
        with pytest.raises(UpstreamMissing):
            await upstream.info(REPO, Revision("v9"))

    async def test_the_tree_lists_every_file_as_git_and_lfs_name_it(
        self, upstream: Upstream
    ) -> None:
        listed = [entry async for entry in upstream.tree(REPO, self.COMMIT)]
        assert sorted(listed, key=lambda entry: entry.path) == [
            located(path) for path in sorted(FILES)
        ]

    async def test_the_tree_of_an_unknown_commit_is_missing(self, upstream: Upstream) -> None:
        with pytest.raises(UpstreamMissing):
            async for _ in upstream.tree(REPO, NOWHERE):
                pass

    @pytest.mark.parametrize("path", FILES)
    async def test_a_whole_file_arrives(self, upstream: Upstream, path: str) -> None:
        file = located(path)
        assert await read(upstream, file) == FILES[path].content.read(0, file.size)

    @pytest.mark.parametrize(
        ("start", "stop"), [(0, 10), (1, 2), (1000, 1_000_000), (1_023_999, 1_024_000), (5, 5)]
    )
    async def test_a_part_is_exactly_that_part(
        self, upstream: Upstream, start: int, stop: int
    ) -> None:
        file = located("sub/deep/model.safetensors")
        content = FILES[file.path].content
        assert await read(upstream, file, start, stop) == content.read(start, stop)

    async def test_an_unknown_file_is_missing(self, upstream: Upstream) -> None:
        with pytest.raises(UpstreamMissing):
            await read(upstream, located("nothing.txt", regular("some")))

    async def test_leaving_half_way_is_fine(self, upstream: Upstream) -> None:
        file = located("sub/deep/model.safetensors")
        async with aclosing(upstream.fetch(file, 0, file.size)) as body:
            async for _ in body:
                break
        assert await read(upstream, located("README.md"))

    async def test_blame_for_a_file_that_was_never_fetched_is_fine(
        self, upstream: Upstream
    ) -> None:
        upstream.blame(located("README.md"))
        assert await read(upstream, located("README.md"))

    async def test_closing_twice_is_fine(self, upstream: Upstream) -> None:
        await upstream.close()
        await upstream.close()

    def test_it_has_a_name_and_at_least_one_connection(self, upstream: Upstream) -> None:
        assert upstream.name
        assert upstream.connections >= 1
