"""The Hub over HTTP, or a mirror that speaks its URLs.

    GET /[datasets/|spaces/]{repo}/resolve/{commit}/{path}    the bytes, mostly after a redirect

`exchange.py` asks, `api.py` reads the JSON; this module reads files.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from proxy.config import Timeouts, UpstreamConfig
from proxy.errors import RangeIgnored, UpstreamUnavailable
from proxy.hub import urls
from proxy.hub.names import CommitSha, RepoId, Revision
from proxy.hub.wire import RepoInfo, TreeEntry
from proxy.upstream.api import HubApi
from proxy.upstream.base import Located, Piece
from proxy.upstream.exchange import Answer, Exchange, Limits, Transient
from proxy.upstream.manners import Manners, Pace
from proxy.upstream.redirects import Renamed


class HubUpstream:
    """An upstream that is asked over HTTP(S), with deadlines on everything but a body's size."""

    def __init__(
        self,
        config: UpstreamConfig,
        timeouts: Timeouts,
        *,
        limits: Limits | None = None,
        manners: Manners | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = limits or Limits()
        manners = manners or Manners(str(config.url), Pace(cap_s=limits.wait_s))
        self._exchange = Exchange(config, timeouts, limits, manners, clock)
        self._api = HubApi(self._exchange)
        self._connections = config.connections

    @property
    def name(self) -> str:
        return self._exchange.name

    @property
    def connections(self) -> int:
        return self._connections

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        return await self._api.info(repo, revision)

    def tree(self, repo: RepoId, commit: CommitSha) -> AsyncGenerator[TreeEntry]:
        return self._api.tree(repo, commit)

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[Piece]:
        left = min(stop, file.size) - start
        if left <= 0:
            return
        with await self._open(file, start, start + left) as answer:
            async with aclosing(answer.chunks()) as body:
                async for chunk in body:
                    yield chunk[:left]
                    left -= len(chunk)
                    if left <= 0:
                        return  # the caller says how long it is, not the upstream

    def source(self, file: Located) -> str:
        return self.name

    def blame(self, file: Located) -> None:
        """A single hub has nobody else to prefer."""

    async def close(self) -> None:
        await self._exchange.close()

    async def _open(self, file: Located, start: int, stop: int) -> Answer:
        """An answer whose body starts with the byte at `start`."""
        ranged = start > 0 or stop < file.size
        headers = {"Range": f"bytes={start}-{stop - 1}"} if ranged else {}
        what = f"{file.path!a} of {file.repo}@{file.commit[:12]}"
        expired = False
        for _ in range(4):  # one new signed URL and one new name are reasons to ask again
            name = self._api.name_of(file.repo)
            path = urls.resolve(name, file.commit, file.path)
            try:
                answer = await self._exchange.get(path, name, headers)
            except Renamed as e:
                await self._api.confirm(file.repo, file.commit, e)
                continue
            try:
                if answer.from_cdn and answer.status in (401, 403):
                    # A signed URL that expired: the hub makes another one, once.
                    if expired:
                        raise Transient(
                            self.name, f"{what}: its CDN refuses two signed URLs: {answer.status}"
                        )
                    expired = True
                    answer.close()
                    continue
                self._check(answer, file, start=start, stop=stop)
            except BaseException:
                answer.close()
                raise
            return answer
        raise Transient(self.name, f"{what}: its redirects lead nowhere")

    def _check(self, answer: Answer, file: Located, *, start: int, stop: int) -> None:
        what = f"{file.path!a} of {file.repo}@{file.commit[:12]}"
        if answer.commit is not None and answer.commit != file.commit:
            raise UpstreamUnavailable(
                self.name, f"{what}: it answers for another commit, {answer.commit[:60]!a}"
            )
        if answer.status == 416 and start > 0:
            raise RangeIgnored(self.name, f"{what}: it refuses a range that is in the file: 416")
        if answer.status not in (200, 206):
            raise answer.refusal(what)
        if answer.is_html and not file.path.lower().endswith((".html", ".htm")):
            raise UpstreamUnavailable(
                self.name, f"{what}: a web page came where a file was expected: captive portal?"
            )
        if answer.status == 206:
            want = f"bytes {start}-{stop - 1}/{file.size}"
            got = answer.headers.get("Content-Range", "")
            if got.strip() != want:
                # From the beginning it may do better than in the middle.
                kind = RangeIgnored if start > 0 else UpstreamUnavailable
                raise kind(self.name, f"{what}: asked for {want!r}, it sends {got[:100]!a}")
        elif start > 0:
            raise RangeIgnored(self.name, f"{what}: it ignores Range")
