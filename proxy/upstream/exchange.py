"""GET requests to one hub: redirects by hand, deadlines, and bodies that are watched.

Everything that aiohttp does by itself and that a mirror must not do is turned off here: total
timeouts, cookies, decompression, proxies from the environment, redirects to anywhere.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from proxy.config import Timeouts, UpstreamConfig
from proxy.errors import (
    UpstreamError,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamUnavailable,
)
from proxy.hub.names import RepoId
from proxy.telemetry import metrics
from proxy.upstream import intake
from proxy.upstream.base import Piece
from proxy.upstream.manners import Manners, asked_wait
from proxy.upstream.redirects import GuardedResolver, RedirectPolicy

_PIECE = 256 * 1024  # read at most; whatever is there comes at once
_BUSY = (429, 503)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an upstream may ask of our patience and memory."""

    headers_s: float = 15.0  # from the request to the end of the last response's headers
    hops: int = 5  # redirects
    slow_s: float = 20.0  # a body is judged over so long a time of waiting for it
    slow_rate: int = 8 * 1024  # bytes per second that it must reach on average
    wait_s: float = 60.0  # of waiting that an upstream may ask for
    tries: int = 4  # of a metadata request
    patience_s: float = 30.0  # after which it is not tried again
    json_size: int = 64 << 20  # bytes of one JSON answer
    pages: int = 10_000  # of one tree


class Transient(UpstreamUnavailable):
    """Unavailable for a reason that may be over in a moment: the same request may be repeated."""


class Answer:
    """The last response of a chain of redirects. A context manager: leaving it closes it."""

    def __init__(
        self,
        exchange: Exchange,
        response: aiohttp.ClientResponse,
        *,
        hops: int,
        commit: str | None,
    ) -> None:
        self._exchange = exchange
        self._response = response
        self._hops = hops
        self.commit = commit  # X-Repo-Commit of the last response that had one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()  # a connection whose body was read to its end is already released

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def redirected(self) -> bool:
        return self._hops > 0

    @property
    def from_cdn(self) -> bool:
        """Whether it was redirected to something that does not look like a hub's URL."""
        path = self._response.url.raw_path
        return self.redirected and "/resolve/" not in path and "/api/" not in path

    @property
    def is_html(self) -> bool:
        # aiohttp's content_type hands the parameters to `email`, which some of them break.
        kind = self.headers.get("Content-Type", "").partition(";")[0]
        return kind.strip().lower() == "text/html"

    def refusal(self, what: str) -> UpstreamError:
        """The error that a status other than the wanted one means."""
        name, status, headers = self._exchange.name, self.status, self.headers
        said = _one_line(headers.get("X-Error-Message", ""))
        problem = f"{what}: {status}{f' ({said})' if said else ''}"
        code = headers.get("X-Error-Code", "")
        # The Hub does not tell who may not see a repository from whether it exists
        # (huggingface_hub, utils/_http.py, hf_raise_for_status).
        if status in (404, 410) or (status == 401 and code == "RepoNotFound"):
            return UpstreamMissing(name, problem)
        if status in (401, 403):
            return UpstreamForbidden(name, problem)
        if status in _BUSY:
            return Transient(name, problem, retry_after_s=asked_wait(headers))
        if status >= 500 or status == 408:
            return Transient(name, problem)
        return UpstreamUnavailable(name, problem)

    async def chunks(self) -> AsyncGenerator[Piece]:
        """The body as it arrives. Raises: UpstreamUnavailable, also if it comes too slowly."""
        limits, clock = self._exchange.limits, self._exchange.clock
        waited, got = 0.0, 0  # since the last verdict; the consumer's own time does not count
        async with aclosing(self._pieces()) as pieces:
            while True:
                asked = clock()
                try:
                    chunk = await anext(pieces)
                except StopAsyncIteration:
                    return
                except (aiohttp.ClientError, OSError, TimeoutError) as e:
                    raise self._exchange.translated(e, self._response.url, half_way=True) from e
                waited += clock() - asked
                got += len(chunk)
                if waited >= limits.slow_s:
                    if got < limits.slow_rate * waited:
                        raise Transient(
                            self._exchange.name, f"too slow: {got:,} bytes came in {waited:.0f} s"
                        )
                    waited, got = 0.0, 0
                yield chunk

    async def _pieces(self) -> AsyncGenerator[Piece]:
        """Raises: what aiohttp raises."""
        taken = intake.take_over(self._response, self._exchange.intakes)
        if taken is None:
            while piece := await self._read_some():
                yield piece
            return
        came, rest = taken
        self._exchange.intakes += 1
        try:
            if came:
                yield came
            async with aclosing(rest.pieces(self._exchange.silence_s)) as pieces:
                async for chunk in pieces:
                    yield chunk
        finally:
            self._exchange.intakes -= 1
            rest.close()

    async def _read_some(self) -> bytes:
        """What came; nothing at the end. Raises: what aiohttp raises."""
        try:
            # aiohttp hangs up on a chunk that is none, and its reader never hears of it.
            async with asyncio.timeout(self._exchange.silence_s):
                return await self._response.content.read(_PIECE)
        except TimeoutError:
            raise aiohttp.SocketTimeoutError("nothing came") from None

    async def read(self, most: int) -> bytes:
        """The whole body. Raises: UpstreamUnavailable, also if it is longer than `most` bytes."""
        pieces, size = [], 0
        async with aclosing(self.chunks()) as body:
            async for chunk in body:
                size += len(chunk)
                if size > most:
                    raise UpstreamUnavailable(
                        self._exchange.name, f"its answer is longer than {most:,} bytes"
                    )
                pieces.append(bytes(chunk))
        return b"".join(pieces)


class Exchange:
    """Asks one hub, under its redirect policy, with our token for that hub and nobody else."""

    def __init__(
        self,
        config: UpstreamConfig,
        timeouts: Timeouts,
        limits: Limits,
        manners: Manners,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base = str(config.url.with_query(None).with_fragment(None)).rstrip("/")
        self.name = self.base
        self.limits = limits
        self.clock = clock
        self._origin = config.url.origin()
        self._token = config.token
        self._timeouts = timeouts
        self._manners = manners
        self._policy = RedirectPolicy(self.name, config.url, config.redirect_hosts)
        self._client: aiohttp.ClientSession | None = None
        self._closed = False
        self.intakes = 0  # bodies that come by `intake`

    async def get(
        self, path: str, repo: RepoId | None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The answer to a GET of `path` (quoted, with its query), whatever its status.

        `repo` is what redirects may not leave; None if they may. Raises: UpstreamUnavailable,
        Renamed.
        """
        url = URL(f"{self.base}{path}", encoded=True)
        left = self._timeouts.connect + self.limits.headers_s
        commit: str | None = None
        for hops in range(self.limits.hops + 1):
            origin = _origin_key(url)
            asked = await self._manners.turn(origin)
            began = self.clock()
            try:
                response = await self._ask(url, headers or {}, left)
            except Transient:
                self._manners.failed(origin, asked)
                raise
            left -= self.clock() - began
            commit = response.headers.get("X-Repo-Commit", commit)
            try:
                self._note(origin, asked, response)
                location = self._location(response)
                if location is None:
                    self._check_encoding(response)
                    return Answer(self, response, hops=hops, commit=commit)
                url = self._policy.target(url, location, repo)
            except BaseException:
                response.close()
                raise
            response.release()  # for the next request, if its short body came along
        raise UpstreamUnavailable(self.name, f"it redirects more than {self.limits.hops} times")

    @property
    def silence_s(self) -> float:
        """How long a body may bring nothing."""
        return self._timeouts.read

    async def close(self) -> None:
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ask(
        self, url: URL, headers: Mapping[str, str], left: float
    ) -> aiohttp.ClientResponse:
        sent = {"Accept-Encoding": "identity", **headers}
        if self._token and url.origin() == self._origin:
            sent["Authorization"] = f"Bearer {self._token.reveal()}"
        try:
            # sock_read starts anew with every byte: only a deadline ends dribbled headers.
            async with asyncio.timeout(left):
                return await self._session().get(url, headers=sent, allow_redirects=False)
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise self.translated(e, url) from e

    def _session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise UpstreamUnavailable(self.name, "it was closed")
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=GuardedResolver(self._policy),
                    limit=0,  # callers limit themselves; waiting for a slot is not slowness
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=2 * self._timeouts.connect,  # with the name's resolution
                    sock_connect=self._timeouts.connect,
                    sock_read=self._timeouts.read,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=_PIECE,
                headers={"User-Agent": "hubpin"},
            )
        return self._client

    def _note(self, origin: str, asked: float, response: aiohttp.ClientResponse) -> None:
        if response.status == 429:
            metrics.UPSTREAM_LIMITED.inc()
        if response.status in _BUSY:
            wait_s = asked_wait(response.headers)
            if wait_s is not None:
                self._manners.told(origin, wait_s)
                return
        if response.status in _BUSY or response.status >= 500:
            self._manners.failed(origin, asked)
        else:
            self._manners.fine(origin)

    def _location(self, response: aiohttp.ClientResponse) -> str | None:
        if response.status not in (301, 302, 303, 307, 308):
            return None
        location = response.headers.get("Location")
        if not location:
            raise UpstreamUnavailable(self.name, f"it answers {response.status} without Location")
        return location

    def _check_encoding(self, response: aiohttp.ClientResponse) -> None:
        if response.status not in (200, 206):
            return  # an error page is never read
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise UpstreamUnavailable(
                self.name, f"it sends {_one_line(encoding)!r} where identity was asked for"
            )

    def translated(self, e: Exception, url: URL, *, half_way: bool = False) -> UpstreamUnavailable:
        """A library's error in our words. Signed URLs stay out of it: errors are logged."""
        host = f"{url.host}:{url.port}"
        if isinstance(e, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            reason = getattr(getattr(e, "certificate_error", e), "verify_message", "") or "invalid"
            return UpstreamUnavailable(
                self.name,
                f"certificate verification failed for {host}: {reason} "
                "(is this machine's clock right?)",
            )
        if isinstance(e, aiohttp.ClientSSLError | ssl.SSLError):
            return UpstreamUnavailable(self.name, f"no TLS with {host}: {_reason(e)}")
        if isinstance(e, aiohttp.ConnectionTimeoutError):
            problem = f"no connection to {host} within {self._timeouts.connect:g} s"
        elif isinstance(e, aiohttp.SocketTimeoutError):
            problem = f"nothing came from {host} for {self._timeouts.read:g} s"
        elif isinstance(e, aiohttp.ClientConnectorError):
            problem = f"cannot connect to {host}: {_reason(e)}"
        elif isinstance(e, TimeoutError):
            problem = f"no answer from {host} within {self.limits.headers_s:g} s"
        elif half_way:
            problem = f"the connection to {host} broke: {_reason(e)}"
        elif isinstance(e, aiohttp.ServerDisconnectedError):
            problem = f"{host} hung up without an answer"
        else:
            problem = f"no valid answer from {host}: {_reason(e)}"
        return Transient(self.name, problem)


def _origin_key(url: URL) -> str:
    # The Hub counts its API and its files apart (huggingface.co/docs/hub/rate-limits).
    path = url.raw_path
    api = "/api/" in path and "/api/resolve-cache/" not in path
    return f"{url.origin()} {'api' if api else 'files'}"


def _reason(e: Exception) -> str:
    if isinstance(e, aiohttp.ClientResponseError):
        return _one_line(e.message)
    if isinstance(e, aiohttp.ClientConnectorError):
        return _one_line(e.strerror or str(e.os_error))
    return _one_line(str(e)) or type(e).__name__


def _one_line(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]+", " ", text).strip()[:300]
