"""One thread that moves bytes from files into sockets with sendfile, a piece for each in turn.

asyncio's own sendfile gives one client as much as its socket takes, so 64 clients fare very
differently, and it faults pages in on the event loop: with a cold page cache on a slow disk every
other request waits. Here a piece is at most 2 MiB, and a piece that is not in the page cache is
read by a small pool first, while others go on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

log = logging.getLogger(__name__)

_PIECE = 2 << 20
_PROBE_EVERY = 256 << 10  # bytes between looks into the page cache
_FAULT_THREADS = 4
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


@dataclass(eq=False, slots=True)
class _Job:
    """[at, stop) of a file on its way into a socket; both descriptors are the job's own."""

    socket: int
    file: int
    at: int
    stop: int
    done: asyncio.Future[int]
    loop: asyncio.AbstractEventLoop
    registered: bool = False  # with the poll
    dropped: bool = False  # nobody waits for it any more
    paged: int = 0  # offset up to which the file was read into memory for it


class Sender:
    """Sends spans of files; the event loop only hears of the end of each."""

    def __init__(self) -> None:
        self._inbox: deque[_Job] = deque()  # to go on with
        self._drops: deque[_Job] = deque()  # to end, if they wait for room
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._faults = ThreadPoolExecutor(_FAULT_THREADS, thread_name_prefix="page-in")
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    async def send(
        self,
        socket_fd: int,
        file_fd: int,
        start: int,
        stop: int,
        reached: Callable[[int], None] = lambda at: None,
    ) -> int:
        """How many bytes of [start, stop) were sent: fewer only if the file ended early.

        `reached` is told how far it came, however it ends. Nothing else may write to the socket
        meanwhile. If the caller is cancelled, sending ends.

        Raises: OSError; ConnectionError when it is the client's fault.
        """
        loop = asyncio.get_running_loop()
        sock = os.dup(socket_fd)
        try:
            file = os.dup(file_fd)
        except OSError:
            os.close(sock)
            raise
        job = _Job(sock, file, start, stop, loop.create_future(), loop)
        self._post(job)
        try:
            return await job.done - start
        except asyncio.CancelledError:
            job.dropped = True
            self._drops.append(job)
            self._ring()
            raise
        finally:
            reached(job.at)

    def close(self) -> None:
        """End the thread; jobs under way are dropped."""
        self._closed = True
        self._ring()
        self._thread.join()
        os.close(self._bell)

    # --- in the thread ----------------------------------------------------------------------------

    def _post(self, job: _Job) -> None:
        self._inbox.append(job)
        self._ring()

    def _ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        poll = select.epoll()
        poll.register(self._bell, select.EPOLLIN)
        waiting: dict[int, _Job] = {}  # by socket: until it takes more
        ready: deque[_Job] = deque()
        try:
            while not self._closed:
                for fd, _ in poll.poll(0 if ready else None):
                    if fd == self._bell:
                        with suppress(BlockingIOError):
                            os.eventfd_read(self._bell)
                    elif fd in waiting:
                        ready.append(waiting.pop(fd))
                while self._inbox:
                    ready.append(self._inbox.popleft())
                while self._drops:
                    job = self._drops.popleft()
                    if waiting.get(job.socket) is job:  # all others are met on their way
                        del waiting[job.socket]
                        self._finish(poll, job)
                for _ in range(len(ready)):
                    job = ready.popleft()
                    try:
                        self._step(poll, job, ready, waiting)
                    except OSError as e:
                        self._finish(poll, job, e)
        finally:
            self._faults.shutdown()  # what is being read ahead comes back to the inbox
            for job in (*ready, *waiting.values(), *self._inbox):
                self._finish(poll, job, ConnectionAbortedError("the server stops"))
            poll.close()

    def _step(
        self, poll: select.epoll, job: _Job, ready: deque[_Job], waiting: dict[int, _Job]
    ) -> None:
        if job.dropped:
            self._finish(poll, job)
            return
        count = min(_PIECE, job.stop - job.at)
        if job.at + count > job.paged and not _resident(job.file, job.at, count):
            self._faults.submit(self._page_in, job, count)
            return
        try:
            sent = os.sendfile(job.socket, job.file, job.at, count)
        except BlockingIOError:
            sent = -1
        if sent > 0:
            job.at += sent
        if job.at >= job.stop or sent == 0:
            self._finish(poll, job)
        elif sent == count:
            ready.append(job)
        else:
            self._await_room(poll, job)
            waiting[job.socket] = job

    @staticmethod
    def _await_room(poll: select.epoll, job: _Job) -> None:
        events = select.EPOLLOUT | select.EPOLLONESHOT
        if job.registered:
            poll.modify(job.socket, events)
        else:
            poll.register(job.socket, events)
            job.registered = True

    def _page_in(self, job: _Job, count: int) -> None:
        """Read a piece that is not in memory, in a thread that may wait for the disk."""
        try:
            left = job.stop - job.at
            os.posix_fadvise(job.file, job.at, min(left, 4 * count), os.POSIX_FADV_WILLNEED)
            at = job.at
            while at < job.at + count and not job.dropped:
                piece = os.pread(job.file, min(_PROBE_EVERY, job.at + count - at), at)
                if not piece:
                    break
                at += len(piece)
            job.paged = at
        except OSError as e:
            log.warning("reading ahead failed: %s", e)
            job.paged = job.stop  # sendfile meets the error again, and the client hears of it
        self._post(job)

    @staticmethod
    def _finish(poll: select.epoll, job: _Job, error: OSError | None = None) -> None:
        if job.socket < 0:
            return
        if job.registered:
            with suppress(OSError):
                poll.unregister(job.socket)
        os.close(job.socket)
        os.close(job.file)
        job.socket = job.file = -1
        with suppress(RuntimeError):  # the loop is closed
            job.loop.call_soon_threadsafe(_settle, job, error)


def _settle(job: _Job, error: OSError | None) -> None:
    if job.done.done():
        return
    if error is not None:
        job.done.set_exception(error)
    else:
        job.done.set_result(job.at)


def _resident(file: int, at: int, count: int) -> bool:
    """Whether a piece is in the page cache, as far as a few looks can tell."""
    if not _NOWAIT:
        return True
    byte = bytearray(1)
    try:
        for offset in (*range(at, at + count, _PROBE_EVERY), at + count - 1):
            os.preadv(file, [byte], offset, _NOWAIT)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return True  # a file system that cannot say
        raise
    return True
