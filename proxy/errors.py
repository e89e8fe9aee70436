"""Every error that we raise on purpose, as one tree.

The second level is who must act: the client (`Refused`), another machine (`UpstreamError`),
security (`IntegrityError`), ourselves (`StoreError`, `Busy`), the operator (`ConfigError`).
Constructors take facts and make the message; the facts stay as attributes.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path


class MirrorError(Exception):
    """Something went wrong that we know how to explain."""


# --- the client asked for something that we do not serve -----------------------------------------


class Refused(MirrorError):
    """The client asked for something that this mirror does not serve."""


class InvalidName(Refused):
    """A name that no repository, revision, path or digest can have."""

    def __init__(self, kind: str, text: str, problem: str) -> None:
        shown = text if len(text) <= 100 else f"{text[:100]}..."
        super().__init__(f"{shown!a} is not a valid {kind}: {problem}")
        self.kind = kind
        self.text = text
        self.problem = problem


class RepoNotAllowed(Refused):
    """The repository is not on the allowlist."""

    def __init__(self, repo: str) -> None:
        super().__init__(f"{repo} is not on this mirror's allowlist")
        self.repo = repo


class RevisionNotAllowed(Refused):
    """The repository is on the allowlist, this revision of it is not."""

    def __init__(self, repo: str, revision: str, allowed: Sequence[str]) -> None:
        listed = ", ".join(allowed) or "none"
        super().__init__(
            f"{repo}@{revision} is not on this mirror's allowlist. Allowed revisions: {listed}"
        )
        self.repo = repo
        self.revision = revision
        self.allowed = tuple(allowed)


class RevisionNotPinned(Refused):
    """The pair is on the allowlist, and nobody has locked it."""

    def __init__(self, repo: str, revision: str, reason: str = "") -> None:
        why = f": {reason}" if reason else ""
        super().__init__(
            f"{repo}@{revision} is allowed but not locked yet{why}. "
            "The admin has to run: hubpin lock"
        )
        self.repo = repo
        self.revision = revision
        self.reason = reason


class EntryNotFound(Refused):
    """The locked commit has no such file or folder."""

    def __init__(self, repo: str, commit: str, path: str) -> None:
        super().__init__(f"{repo} has no {path!a} at the locked commit {commit[:12]}")
        self.repo = repo
        self.commit = commit
        self.path = path


class FormatDenied(Refused):
    """Files of this kind are served of no repository."""

    def __init__(self, repo: str, ending: str) -> None:
        super().__init__(
            f"this mirror serves no {ending} files, of {repo} or any other repository "
            "(formats: in its allowlist)"
        )
        self.repo = repo
        self.ending = ending


class TooLarge(Refused):
    """The client wants it in a form in which we do not hand out that much."""

    def __init__(self, what: str, size: int, most: int) -> None:
        super().__init__(
            f"{what} would be {size:,} bytes, and {most:,} are the most; use hf download"
        )
        self.size = size
        self.most = most


class ReadOnly(Refused):
    """The client tried to write."""

    def __init__(self) -> None:
        super().__init__("this mirror is read-only: upload to the Hub itself, not through it")


# --- we are busy; the same request will do later -------------------------------------------------


class Busy(MirrorError):
    """The answer is being prepared; the same request succeeds later."""

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(f"{what}; try again in {retry_after_s} s")
        self.what = what
        self.retry_after_s = retry_after_s


# --- another machine's fault ---------------------------------------------------------------------


class UpstreamError(MirrorError):
    """Another machine's fault; the next upstream may do better."""

    def __init__(self, upstream: str, problem: str) -> None:
        super().__init__(f"upstream {upstream}: {problem}")
        self.upstream = upstream
        self.problem = problem


class UpstreamUnavailable(UpstreamError):
    """Unreachable, slow, overloaded or cut off: worth another try."""

    def __init__(self, upstream: str, problem: str, retry_after_s: float | None = None) -> None:
        super().__init__(upstream, problem)
        self.retry_after_s = retry_after_s  # what the upstream asked us to wait, if it said so


class UpstreamInvalid(UpstreamUnavailable):
    """It answered, and the answer makes no sense."""


class UpstreamOffline(UpstreamUnavailable):
    """We are configured never to ask an upstream."""

    def __init__(self) -> None:
        super().__init__("none", "this mirror is offline (offline: true) and does not hold this")


class UpstreamMissing(UpstreamError):
    """It answered, and does not have it."""


class UpstreamForbidden(UpstreamError):
    """It has it, and our token does not open it: gated, private or revoked."""


class WindowClosed(UpstreamError):
    """We are told to ask it at other hours only."""

    def __init__(self, upstream: str, wait_s: float) -> None:
        super().__init__(upstream, f"its hours are over, and begin again in {wait_s:.0f} s")
        self.wait_s = wait_s


class RangeIgnored(UpstreamError):
    """It cannot start in the middle of a file."""


# --- bytes that are not the locked bytes ---------------------------------------------------------


class IntegrityError(MirrorError):
    """Bytes are not the locked bytes: never served whole, always reported."""


class DigestMismatch(IntegrityError):
    """The bytes under a name have another digest than the lock says."""

    def __init__(self, name: str, want: str, got: str) -> None:
        super().__init__(f"{name}: the lock says {want}, the bytes that came are {got}")
        self.name = name
        self.want = want
        self.got = got


class PartDistrusted(IntegrityError):
    """A client asks for a piece in the middle of a file of which wrong bytes were sent before."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"wrong bytes of {path} were sent once, before they were found out, so no unfinished "
            "copy of it can be completed: delete what you have and fetch the whole file in one "
            "piece (aria2c -x1 -s1, curl without -C)"
        )
        self.path = path


class BundleInvalid(IntegrityError):
    """A bundle is damaged, cut short or made to harm: no pin of it is taken."""

    def __init__(self, bundle: str, problem: str) -> None:
        super().__init__(f"{bundle}: {problem}. Nothing of it is served")
        self.bundle = bundle
        self.problem = problem


# --- our own disk --------------------------------------------------------------------------------


class StoreError(MirrorError):
    """Our own disk or bucket failed, or could not say."""


class StoreFull(StoreError):
    """There is no room for this without going below `keep_free`."""

    def __init__(self, what: str, need: int, free: int, keep_free: int) -> None:
        super().__init__(
            f"no room for {what}: it needs {need:,} bytes, the disk has {free:,} free and "
            f"{keep_free:,} are to stay free (keep_free). What is held is still served"
        )
        self.need = need
        self.free = free
        self.keep_free = keep_free


class DiskFull(StoreFull):
    """The disk took no more, whatever it had promised."""

    def __init__(self, doing: str) -> None:
        # Clients read this: no paths of ours.
        MirrorError.__init__(self, "the disk of this mirror is full. What is held is still served")
        self.doing = doing
        self.need = self.free = self.keep_free = 0


def disk_failed(doing: str, e: OSError) -> StoreError:
    """What an OSError means. A full disk recovers, and clients are told so."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(doing)
    return StoreError(f"cannot {doing}: {e}")


class BlobAltered(StoreError):
    """A held blob is not the file that was adopted: it has to be hashed before it is served."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"{digest} was changed on disk since it was verified")
        self.digest = digest


class InstanceRunning(StoreError):
    """Another server already works on this data directory."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        who = f" (pid {pid})" if pid else ""
        super().__init__(
            f"another hubpin{who} is already serving from {directory}; "
            "stop it first, or give this one a data directory of its own"
        )
        self.directory = directory
        self.pid = pid


# --- a file that the operator wrote --------------------------------------------------------------


class ConfigError(MirrorError):
    """A file that the operator wrote is wrong."""

    def __init__(self, file: Path | str, line: int | None, problem: str) -> None:
        where = f"{file}:{line}" if line is not None else f"{file}"
        super().__init__(f"{where}: {problem}")
        self.file = str(file)
        self.line = line
        self.problem = problem
