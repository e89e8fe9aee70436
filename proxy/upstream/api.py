"""The Hub's JSON: what a revision means, and which files a commit has.

    GET /api/{type}/{repo}/revision/{revision}            an info object
    GET /api/{type}/{repo}/refs                           branches and tags
    GET /api/{type}/{repo}/tree/{commit}?recursive=true   a list in pages, `Link: <…>; rel="next"`

`hub/wire.py` draws the shapes. Small requests, so they are repeated here when they fail.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator

import msgspec
from yarl import URL

from proxy.errors import InvalidName, UpstreamError, UpstreamInvalid, UpstreamUnavailable
from proxy.hub import urls, wire
from proxy.hub.names import CommitSha, RepoId, Revision
from proxy.hub.wire import RefKind, RepoInfo, TreeEntry
from proxy.upstream.exchange import Exchange, Transient
from proxy.upstream.redirects import Renamed

log = logging.getLogger(__name__)

_NEXT = re.compile(r'<([^<>]*)>\s*;[^<>]*\brel="?next\b', re.IGNORECASE)


class HubApi:
    """Metadata of one hub, and the names that its renamed repositories have there."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._name = exchange.name
        self._renames: dict[RepoId, RepoId] = {}

    def name_of(self, repo: RepoId) -> RepoId:
        """What the hub calls this repository, as far as we know."""
        return self._renames.get(repo, repo)

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        raw = await self._info_object(repo, revision)
        guess = wire.guess_ref_kind(revision)
        try:
            info = wire.parse_info(raw, guess)
        except (ValueError, InvalidName, RecursionError) as e:
            raise self._nonsense(f"the info of {repo}", e) from e
        if revision.commit is not None and info.commit != revision.commit:
            raise UpstreamUnavailable(
                self._name, f"asked for commit {revision} of {repo}, it answers {info.commit}"
            )
        if guess is RefKind.BRANCH:
            kind = await self._ref_kind(repo, revision, info.commit)
            info = RepoInfo(info.commit, kind, info.raw, info.restricted)
        return info

    async def tree(self, repo: RepoId, commit: CommitSha) -> AsyncGenerator[TreeEntry]:
        query: str | None = "recursive=true&expand=false"
        paths: set[str] = set()
        seen: set[str] = set()
        while query is not None:
            if query in seen or len(seen) >= self._exchange.limits.pages:
                raise UpstreamInvalid(
                    self._name, f"the tree of {repo} does not end: page {len(seen) + 1}"
                )
            seen.add(query)
            try:
                page, following = await self._tree_page(repo, commit, query)
            except Renamed as e:
                await self.confirm(repo, commit, e)
                page, following = await self._tree_page(repo, commit, query)
            for entry in page:
                if entry.path in paths:
                    raise UpstreamInvalid(
                        self._name, f"the tree of {repo} lists {entry.path!a} twice"
                    )
                paths.add(entry.path)
                yield entry
            query = following

    async def confirm(self, repo: RepoId, commit: CommitSha, renamed: Renamed) -> None:
        """Ask the API whether this commit is at home in the repository that we were sent to.

        Raises: `renamed` again if it is not, UpstreamError.
        """
        if self._renames.get(repo) == renamed.repo:
            raise renamed
        # A redirect of this request alone is followed anywhere in the hub; it answers with the
        # repository's name of today.
        await self._info_object(repo, Revision(commit))
        if self._renames.get(repo) != renamed.repo:
            raise renamed
        log.info("%s calls %s by the name of %s", self._name, repo, renamed.repo)

    async def _info_object(self, repo: RepoId, revision: Revision) -> dict[str, object]:
        path = urls.api(repo, "revision", revision)
        raw, _, redirected = await self._json(path, None, f"{repo}@{revision}")
        if not isinstance(raw, dict):
            raise self._nonsense(f"the info of {repo}", ValueError("not a JSON object"))
        told = raw.get("id", repo.name)
        try:
            actual = RepoId.of(repo.type, told if isinstance(told, str) else "")
        except InvalidName as e:
            raise self._nonsense(f"the info of {repo}", e) from e
        if actual != repo:
            if not redirected and actual.lower() != repo.lower():
                raise UpstreamUnavailable(
                    self._name, f"asked about {repo}, it answers about {actual}; was it renamed?"
                )
            self._renames[repo] = actual
        return raw

    async def _ref_kind(self, repo: RepoId, revision: Revision, commit: CommitSha) -> RefKind:
        """Whether a plain name is a branch or a tag; a branch, if the hub cannot say."""
        name = self.name_of(repo)
        try:
            raw, _, _ = await self._json(urls.api(name, "refs"), name, f"the refs of {repo}")
        except UpstreamError as e:
            log.warning("whether %s@%s is a branch or a tag: %s", repo, revision, e)
            return wire.guess_ref_kind(revision)
        for kind in (RefKind.BRANCH, RefKind.TAG):
            listed = raw.get(kind.value) if isinstance(raw, dict) else None
            for ref in listed if isinstance(listed, list) else []:
                if isinstance(ref, dict) and revision in (ref.get("name"), ref.get("ref")):
                    return kind
        if len(revision) >= 7 and commit.startswith(revision):
            return RefKind.COMMIT
        return wire.guess_ref_kind(revision)

    async def _tree_page(
        self, repo: RepoId, commit: CommitSha, query: str
    ) -> tuple[list[TreeEntry], str | None]:
        """The files of one page, and the query of the next one."""
        name = self.name_of(repo)
        path = urls.api(name, "tree", commit)
        raw, link, _ = await self._json(f"{path}?{query}", name, f"the tree of {repo}@{commit}")
        if not isinstance(raw, list):
            raise self._nonsense(f"the tree of {repo}", ValueError("not a JSON list"))
        try:
            parsed = [wire.parse_tree_entry(one, repo, commit) for one in raw]
        except (ValueError, InvalidName) as e:
            # One impossible name makes the whole tree untrustworthy.
            raise self._nonsense(f"the tree of {repo}", e) from e
        return [one for one in parsed if one is not None], self._next_query(path, link)

    def _next_query(self, path: str, link: str) -> str | None:
        """Only the query of the next page is taken from the hub.

        hf-mirror.com names huggingface.co in its Link headers (padeoe/hf-mirror-site#65).
        """
        found = _NEXT.search(link)
        if found is None:
            return None
        here = URL(f"{self._exchange.base}{path}", encoded=True)
        try:
            there = here.join(URL(found[1], encoded=True))
            same = there.path in (here.path, URL(path, encoded=True).path)
        except ValueError as e:
            raise self._nonsense("the link to the next page", e) from e
        if not same or not there.raw_query_string:
            raise UpstreamInvalid(
                self._name, f"the next page of {path} is to be {there.raw_path[:200]!a}"
            )
        return there.raw_query_string

    async def _json(self, path: str, repo: RepoId | None, what: str) -> tuple[object, str, bool]:
        """The decoded body, the Link header, and whether there was a redirect.

        Tried again after a failure that may pass; `Manners` spaces the tries.
        """
        limits, clock = self._exchange.limits, self._exchange.clock
        tries, began = 0, clock()
        while True:
            tries += 1
            try:
                return await self._json_once(path, repo, what)
            except (Transient, UpstreamInvalid) as e:
                if tries >= limits.tries or clock() - began > limits.patience_s:
                    raise
                if (e.retry_after_s or 0) > limits.wait_s:
                    raise
                log.info("%s, trying again", e)

    async def _json_once(
        self, path: str, repo: RepoId | None, what: str
    ) -> tuple[object, str, bool]:
        with await self._exchange.get(path, repo) as answer:
            if answer.status != 200:
                raise answer.refusal(what)
            if answer.is_html:
                raise UpstreamUnavailable(
                    self._name, f"{what}: a web page came where JSON was expected: captive portal?"
                )
            body = await answer.read(self._exchange.limits.json_size)
            try:
                decoded: object = msgspec.json.decode(body)
            except (msgspec.MsgspecError, ValueError, RecursionError) as e:
                # Cut short in most cases, so another try may bring the rest.
                raise UpstreamInvalid(self._name, f"{what}: not valid JSON: {e}") from e
            return decoded, answer.headers.get("Link", ""), answer.redirected

    def _nonsense(self, what: str, e: Exception) -> UpstreamInvalid:
        return UpstreamInvalid(self._name, f"{what} makes no sense: {e}")
