"""The Hub's URL paths, both directions.

    /[datasets/|spaces/]{repo}/resolve/{revision}/{path}        a file (also raw/)
    /api/{models|datasets|spaces}[/{repo}[/{verb}[/{rest…}]]]   JSON; verbs in `API_VERBS`
    /[datasets/|spaces/]{repo}[.git]/{info/refs|git-upload-pack|git-receive-pack|info/lfs/…}   git
    /v2/{repo}/{manifests|blobs}/{name}                         what Ollama asks

A raw path is split on `/` first and each segment decoded once after that, as strict UTF-8: decoding
first turns `..%2f` into a traversal, decoding twice turns `%2520` into a space.

Some clients encode the slash of `refs/pr/1`, others do not, so where a revision ends and a path
begins depends on the revisions that exist. The parser hands on the segments, and
`Catalog.split` in `pins/catalog.py` splits them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from proxy.errors import InvalidName
from proxy.hub.names import CommitSha, RepoId, RepoPath, RepoType, Revision

MAX_PATH_BYTES = 16 * 1024
API_VERBS = frozenset({"revision", "tree", "paths-info", "refs", "commits", "auth-check"})
FILE_VERBS = frozenset({"resolve", "raw"})
GIT_SERVICES = frozenset({"info/refs", "git-upload-pack", "git-receive-pack"})
REGISTRY_VERBS = frozenset({"manifests", "blobs"})


@dataclass(frozen=True, slots=True)
class FileAddress:
    """`/{repo}/resolve/…` or `/{repo}/raw/…`; `rest` holds the revision and then the path."""

    repo: RepoId
    verb: str
    rest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApiAddress:
    """`/api/{type}/{repo}/{verb}/…`; the verb is "" for the repository itself."""

    repo: RepoId
    verb: str
    rest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListAddress:
    """`/api/{type}`: every repository of a type."""

    type: RepoType


@dataclass(frozen=True, slots=True)
class GitAddress:
    """`/{repo}.git/{service}`: `info/refs`, `git-upload-pack`, `info/lfs/objects/batch`, …"""

    repo: RepoId
    service: str


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """`/v2/{repo}/manifests/{tag}` or `/v2/{repo}/blobs/{digest}`."""

    repo: RepoId
    verb: str
    name: str


@dataclass(frozen=True, slots=True)
class OtherAddress:
    """Anything else; `segments` are decoded."""

    segments: tuple[str, ...]


RepoAddress = FileAddress | ApiAddress | GitAddress | RegistryAddress
Address = RepoAddress | ListAddress | OtherAddress


def parse(raw_path: str) -> Address:
    """What a raw request path (without its query) asks for. Raises: InvalidName."""
    # The same paths come again and again; long ones are not worth their memory.
    return _parse_again(raw_path) if len(raw_path) <= 512 else _parse(raw_path)


def _parse(raw_path: str) -> Address:
    """Leading slashes collapse: `HF_ENDPOINT=http://host:port/` makes huggingface_hub 0.20 and
    every `datasets` ask for `//api/…`."""
    if len(raw_path) > MAX_PATH_BYTES:
        raise InvalidName("path", raw_path, f"longer than {MAX_PATH_BYTES} bytes")
    segments = segments_of(raw_path)
    if segments[0] == "api":
        return _parse_api(segments)
    kind = RepoType.MODEL
    rest = segments
    if segments[0] in ("datasets", "spaces"):
        kind, rest = RepoType(segments[0]), segments[1:]
    # A name has one part or two, so the verb is the second segment or the third. A repository may
    # itself be called "resolve"; org/name is the usual form and is tried first.
    for at in (2, 1):
        if len(rest) > at + 1 and rest[at] in FILE_VERBS:
            repo = _repo(kind, rest[:at])
            return FileAddress(repo, rest[at], rest[at + 1 :])
    for at in (2, 1):
        service = "/".join(rest[at:])
        if len(rest) > at and (service in GIT_SERVICES or service.startswith("info/lfs/")):
            return GitAddress(_repo(kind, (*rest[: at - 1], _bare(rest[at - 1]))), service)
    if segments[0] == "v2" and len(segments) in (4, 5) and segments[-2] in REGISTRY_VERBS:
        return RegistryAddress(_repo(kind, segments[1:-2]), segments[-2], segments[-1])
    return OtherAddress(segments)


_parse_again = lru_cache(maxsize=8192)(_parse)


def segments_of(raw_path: str) -> tuple[str, ...]:
    """The decoded segments of a raw path. Raises: InvalidName."""
    return tuple(_decode(segment) for segment in raw_path.lstrip("/").split("/"))


def _parse_api(segments: tuple[str, ...]) -> Address:
    if len(segments) < 2 or segments[1] not in ("models", "datasets", "spaces"):
        return OtherAddress(segments)
    kind, rest = RepoType(segments[1]), segments[2:]
    if not rest or rest == ("",):
        return ListAddress(kind)
    for at in (2, 1):
        if len(rest) > at and rest[at] in API_VERBS:
            return ApiAddress(_repo(kind, rest[:at]), rest[at], rest[at + 1 :])
    if len(rest) <= 2:
        return ApiAddress(_repo(kind, rest), "", ())
    return OtherAddress(segments)


def _bare(name: str) -> str:
    """A repository may be cloned with `.git` and without."""
    return name.removesuffix(".git")


def _repo(kind: RepoType, parts: tuple[str, ...]) -> RepoId:
    if any("/" in part for part in parts):  # %2F inside an id is somebody trying doors
        raise InvalidName("repository", "/".join(parts), "an encoded slash is not allowed in it")
    return RepoId.of(kind, "/".join(parts))


def _decode(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as e:
        raise InvalidName("path", segment, "it is not UTF-8") from e
    except UnicodeEncodeError as e:
        raise InvalidName("path", segment, "it holds bytes that are not ASCII") from e


def resolve(repo: RepoId, revision: Revision | CommitSha, path: RepoPath) -> str:
    return f"/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def api(repo: RepoId, verb: str = "", revision: str = "") -> str:
    """`/api/models/org/name/tree/main`; verb and revision may be left out."""
    tail = f"/{verb}" if verb else ""
    if revision:
        tail += f"/{quote(revision, safe='')}"
    return f"/api/{repo.type.value}/{repo.name}{tail}"
