"""What a revision means upstream, now: the authorities are asked, the first answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from proxy.errors import (
    MirrorError,
    UpstreamError,
    UpstreamMissing,
    UpstreamOffline,
    UpstreamUnavailable,
)
from proxy.hub.names import CommitSha, Pair, RepoId
from proxy.hub.wire import RepoInfo, TreeEntry
from proxy.upstream.base import Upstream

ROUNDS = 3  # how often an upstream that is unavailable is asked
COMPARE_S = 10.0  # how long the other authorities may take to agree
MAX_PAUSE_S = 60.0

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the first authority that answered says, and who says something else."""

    info: RepoInfo
    upstream: Upstream
    dissent: tuple[tuple[str, CommitSha], ...]  # (authority, the commit that it says)


async def resolve(authorities: Sequence[Upstream], pair: Pair, *, pause: Pause) -> Answer:
    """What `pair` means now.

    Raises: MirrorError; if nobody answered, the error of the first who might have known.
    """
    if not authorities:
        raise UpstreamOffline
    for attempt in range(ROUNDS):
        errors: list[MirrorError] = []
        answer = await _ask(authorities, pair, errors)
        if answer is not None:
            return answer
        busy = [e for e in errors if _worth_another_try(e)]
        if not busy or attempt == ROUNDS - 1:
            break
        await pause(wait_s(busy[0], attempt))
    # "It is not here" says less than "I cannot tell" or "you may not".
    raise next((e for e in errors if not isinstance(e, UpstreamMissing)), errors[0])


async def _ask(
    authorities: Sequence[Upstream], pair: Pair, errors: list[MirrorError]
) -> Answer | None:
    repo, revision = pair.repo, pair.revision
    asked = [
        (one, asyncio.create_task(one.info(repo, revision), name=f"ask {one.name}"))
        for one in authorities
    ]
    try:
        while asked:
            upstream, task = asked.pop(0)
            try:
                info = await task
            except MirrorError as e:
                errors.append(e)
                continue
            if revision.commit not in (None, info.commit):
                raise UpstreamError(
                    upstream.name, f"asked for commit {revision}, it answers {info.commit}"
                )
            return Answer(info, upstream, await _dissent(asked, info.commit))
        return None
    finally:
        for _, task in asked:
            task.cancel()
        await asyncio.gather(*(task for _, task in asked), return_exceptions=True)


async def _dissent(
    asked: Sequence[tuple[Upstream, asyncio.Task[RepoInfo]]], commit: CommitSha
) -> tuple[tuple[str, CommitSha], ...]:
    """Who of the others says another commit; who does not answer in time says nothing."""
    if not asked:
        return ()
    await asyncio.wait([task for _, task in asked], timeout=COMPARE_S)
    return tuple(
        (upstream.name, task.result().commit)
        for upstream, task in asked
        if task.done() and task.exception() is None and task.result().commit != commit
    )


async def read_tree(
    upstreams: Iterable[Upstream], repo: RepoId, commit: CommitSha, *, pause: Pause
) -> list[TreeEntry]:
    """Every file of a commit, from the first upstream that lists it to the end.

    Raises: MirrorError, the last one's.
    """
    error: MirrorError = UpstreamOffline()
    for upstream in upstreams:
        for attempt in range(ROUNDS):
            try:
                return await _list(upstream, repo, commit)
            except MirrorError as e:
                error = e
                if not _worth_another_try(e) or attempt == ROUNDS - 1:
                    break
            await pause(wait_s(error, attempt))
    raise error


async def _list(upstream: Upstream, repo: RepoId, commit: CommitSha) -> list[TreeEntry]:
    found: dict[str, TreeEntry] = {}
    async with aclosing(upstream.tree(repo, commit)) as files:
        async for file in files:
            if file.path in found:
                raise UpstreamError(upstream.name, f"it lists {file.path!a} twice in {commit}")
            found[file.path] = file
    return list(found.values())


def _worth_another_try(error: MirrorError) -> bool:
    return isinstance(error, UpstreamUnavailable) and not isinstance(error, UpstreamOffline)


def wait_s(error: MirrorError, attempt: int) -> float:
    """How long to wait before the next try: what the upstream asked for, or 1, 2, 4 … s."""
    asked = error.retry_after_s if isinstance(error, UpstreamUnavailable) else None
    return min(2.0**attempt if asked is None else asked, MAX_PAUSE_S)
