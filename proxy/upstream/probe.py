"""One request to an upstream, to see whether it answers and what time it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from proxy import upstream as upstreams
from proxy.config import Timeouts, UpstreamConfig
from proxy.errors import MirrorError, UpstreamUnavailable
from proxy.hub import urls
from proxy.hub.names import Pair
from proxy.upstream.exchange import Answer, Exchange, Limits
from proxy.upstream.manners import Manners


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of it."""

    name: str  # of the upstream
    error: MirrorError | None  # None: it answered as it should
    date: float | None  # Unix seconds, as it says; None: it does not say


async def probe(config: UpstreamConfig, timeouts: Timeouts, pair: Pair | None) -> Probe:
    """Ask about the pair; without one, for the base of its URL. Never raises for its answer."""
    if config.url.scheme == "file":
        return await _look(config, timeouts, pair)
    exchange = Exchange(config, timeouts, Limits(), Manners(str(config.url)))
    path = urls.api(pair.repo, "revision", pair.revision) if pair else "/"
    date: float | None = None
    try:
        with await exchange.get(path, None) as answer:
            date = _date(answer.headers)
            error = _verdict(exchange.name, answer, pair)
    except MirrorError as e:
        error = e
    finally:
        await exchange.close()
    return Probe(exchange.name, error, date)


async def _look(config: UpstreamConfig, timeouts: Timeouts, pair: Pair | None) -> Probe:
    upstream = upstreams.from_url(config, timeouts)
    folder = Path(config.url.path)
    error: MirrorError | None = None
    try:
        if pair is not None:
            await upstream.info(pair.repo, pair.revision)
        elif not await asyncio.to_thread(folder.is_dir):
            error = UpstreamUnavailable(
                upstream.name, f"there is no directory {folder}; is the disk plugged in?"
            )
    except MirrorError as e:
        error = e
    finally:
        await upstream.close()
    return Probe(upstream.name, error, None)


def _verdict(name: str, answer: Answer, pair: Pair | None) -> MirrorError | None:
    if pair is None:  # any page will do, even one that says that there is none
        return answer.refusal("its first page") if answer.status >= 500 else None
    if answer.status != 200:
        return answer.refusal(pair)
    if answer.is_html:
        return UpstreamUnavailable(
            name, f"{pair}: a web page came where JSON was expected: captive portal?"
        )
    return None


def _date(headers: Mapping[str, str]) -> float | None:
    """RFC 9110 §6.6.1: when it was made; RFC 9111 §5.1: how long ago that is, of a cached one."""
    try:
        age = headers.get("Age", "0").strip()
        made = parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None
    return made + (int(age) if age.isascii() and age.isdigit() and len(age) < 10 else 0)
