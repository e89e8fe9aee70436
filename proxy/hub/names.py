"""The Hub's names as values that are valid by construction.

A name that exists is a name that may be used as a dictionary key; none of them is ever used as a
path on our disk, except `Digest.hex`.
"""

from __future__ import annotations

import enum
import re
from typing import ClassVar, Self

from proxy.errors import InvalidName

# C0 controls, DEL and the C1 controls: some of them move a terminal's cursor.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class RepoType(enum.Enum):
    """Kind of repository; the value is its plural in `/api/<plural>/…`."""

    MODEL = "models"
    DATASET = "datasets"
    SPACE = "spaces"

    @property
    def prefix(self) -> str:
        """What stands before the name in `/resolve` URLs and in our files."""
        return "" if self is RepoType.MODEL else f"{self.value}/"


class _Name(str):
    """A string that matches its kind's pattern."""

    __slots__ = ()
    _kind: ClassVar[str]
    _pattern: ClassVar[re.Pattern[str]]
    _problem: ClassVar[str]

    def __new__(cls, text: str) -> Self:
        if cls._pattern.fullmatch(text) is None:
            raise InvalidName(cls._kind, text, cls._problem)
        return super().__new__(cls, text)


class CommitSha(_Name):
    """A revision that cannot move: 40 lower-case hex digits."""

    __slots__ = ()
    _kind = "commit"
    _pattern = re.compile(r"[0-9a-f]{40}")
    _problem = "a commit is 40 lower-case hex digits"


class GitOid(_Name):
    """A git object id (SHA-1), the Hub's `oid` and `blob_id`."""

    __slots__ = ()
    _kind = "git object id"
    _pattern = re.compile(r"[0-9a-f]{40}")
    _problem = "an object id is 40 lower-case hex digits"


class Digest(_Name):
    """What bytes *are*: `sha256:` and 64 lower-case hex digits."""

    __slots__ = ()
    _kind = "digest"
    _pattern = re.compile(r"sha256:[0-9a-f]{64}")
    _problem = "a digest is sha256: and 64 lower-case hex digits"

    @classmethod
    def of_hex(cls, hexdigits: str) -> Digest:
        return cls(f"sha256:{hexdigits}")

    @property
    def hex(self) -> str:
        return self[7:]


class RepoId(str):
    """A repository with its type: `org/model`, `gpt2`, `datasets/squad`, `spaces/org/app`.

    Compared byte by byte: another case is another repository.
    """

    __slots__ = ()
    # huggingface_hub, utils/_validators.py, validate_repo_id
    _part = re.compile(r"[A-Za-z0-9_](?:[\w.\-]{0,94}[A-Za-z0-9_])?", re.ASCII)

    def __new__(cls, text: str) -> Self:
        kind, name = cls._split(text)
        parts = name.split("/")
        if len(parts) > 2 or not all(cls._part.fullmatch(part) for part in parts):
            raise InvalidName(
                "repository",
                text,
                "write org/name or name, of letters, digits, '-', '_' and '.', "
                "with datasets/ or spaces/ before it where it is one",
            )
        if "--" in name or ".." in name or name.endswith(".git"):
            raise InvalidName("repository", text, "it may not hold '--' or '..' or end in '.git'")
        if kind is RepoType.MODEL and parts[0] in _RESERVED:
            raise InvalidName("repository", text, f"{parts[0]!r} is not a user or an organisation")
        return super().__new__(cls, text)

    @staticmethod
    def _split(text: str) -> tuple[RepoType, str]:
        for kind in (RepoType.DATASET, RepoType.SPACE):
            if text.startswith(kind.prefix):
                return kind, text[len(kind.prefix) :]
        return RepoType.MODEL, text

    @classmethod
    def of(cls, kind: RepoType, name: str) -> RepoId:
        """`name` as the Hub's API says it, without the type."""
        return cls(kind.prefix + name)

    @property
    def type(self) -> RepoType:
        return self._split(self)[0]

    @property
    def name(self) -> str:
        """Without the type: what the Hub's JSON calls `id`."""
        return self._split(self)[1]


# First path segments with a meaning of their own on the Hub or here.
_RESERVED = frozenset({"api", "datasets", "spaces", "models", "kernels", "buckets"})


class Revision(str):
    """What a client asks for: branch, tag, `refs/pr/7`, commit."""

    __slots__ = ()
    # git-check-ref-format(1), rules 3 to 10
    _bad = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(?:/|$)|(?:^|/)\.|^@$")

    def __new__(cls, text: str) -> Self:
        if not text or len(text.encode("utf-8", "surrogatepass")) > 255:
            raise InvalidName("revision", text, "a revision has 1 to 255 bytes")
        bad = cls._bad.search(text) or _CONTROL.search(text)
        if bad or text[0] in "-/" or text[-1] in "/." or not _encodable(text):
            raise InvalidName("revision", text, "git does not allow such a name for a ref")
        return super().__new__(cls, text)

    @property
    def commit(self) -> CommitSha | None:
        """Itself as a commit, if it is one."""
        return CommitSha(self) if CommitSha._pattern.fullmatch(self) else None


class RepoPath(str):
    """A file's path inside a repository: segments joined by `/`, none of them special."""

    __slots__ = ()
    # Nearly every path is plain, and a lock holds a hundred thousand of them.
    _plain = re.compile(r"(?:[\w\-+ ,=@][\w\-+ ,=@.]*/)*[\w\-+ ,=@][\w\-+ ,=@.]*", re.ASCII)

    def __new__(cls, text: str) -> Self:
        if len(text) <= 255 and cls._plain.fullmatch(text):
            return super().__new__(cls, text)
        if not _encodable(text):
            raise InvalidName("path", text, "it is not valid Unicode")
        if not text or len(text.encode()) > 4096:
            raise InvalidName("path", text, "a path has 1 to 4096 bytes")
        if _CONTROL.search(text) or "\\" in text:
            raise InvalidName("path", text, "control characters and backslashes are not allowed")
        for segment in text.split("/"):
            if segment in ("", ".", ".."):
                raise InvalidName("path", text, f"a segment may not be {segment!r}")
            if len(segment.encode()) > 255:
                raise InvalidName("path", text, "a segment has at most 255 bytes")
        return super().__new__(cls, text)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Pair(str):
    """`repo@revision`, as the allowlist, the lock and people write it."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        repo, at, revision = text.partition("@")
        if not at:
            raise InvalidName("pair", text, "write repo@revision, for example org/model@main")
        RepoId(repo)
        Revision(revision)
        return super().__new__(cls, text)

    @classmethod
    def of(cls, repo: RepoId, revision: Revision) -> Pair:
        return cls(f"{repo}@{revision}")

    @property
    def repo(self) -> RepoId:
        return RepoId(self.partition("@")[0])

    @property
    def revision(self) -> Revision:
        return Revision(self.partition("@")[2])
