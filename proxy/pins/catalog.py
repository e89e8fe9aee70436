"""Allowlist + Lock → Catalog: what may be served now. Immutable, and pure look-ups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from proxy.errors import (
    EntryNotFound,
    FormatDenied,
    InvalidName,
    RepoNotAllowed,
    RevisionNotAllowed,
    RevisionNotPinned,
)
from proxy.hub import gitoid
from proxy.hub.names import CommitSha, Digest, GitOid, Pair, RepoId, RepoType, Revision
from proxy.hub.wire import Json, RefKind
from proxy.pins import lock as locks
from proxy.pins.allowlist import Allowed, Allowlist
from proxy.pins.lock import Entry, Lock, Pin

MAIN = Revision("main")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Snapshot:
    """Every file of a pair that may be served, at its locked commit."""

    pin: Pin
    allowed: Allowed
    files: Mapping[str, Entry]
    folders: Mapping[str, GitOid]  # path → oid of the git tree that its served files make
    fingerprint: Digest

    @property
    def repo(self) -> RepoId:
        return self.pin.repo

    @property
    def commit(self) -> CommitSha:
        return self.pin.commit

    @property
    def pair(self) -> Pair:
        return self.pin.pair

    @property
    def info(self) -> Json:
        return self.pin.info

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def entry(self, path: str) -> Entry:
        """Raises: EntryNotFound, also for a path that no file can have; FormatDenied."""
        entry = self.files.get(path)
        if entry is None:
            ending = self.allowed.denies(path)
            if ending is not None:
                raise FormatDenied(self.repo, ending)
            raise EntryNotFound(self.repo, self.commit, path)
        return entry

    def children(self, folder: str, *, recursive: bool) -> Iterator[Entry | str]:
        """Files and folders (as their path) below `folder` ("" is the top).

        Raises: EntryNotFound, if there is no such folder.
        """
        folder = folder.strip("/")
        if folder and folder not in self.folders:
            raise EntryNotFound(self.repo, self.commit, folder)
        prefix = f"{folder}/" if folder else ""
        for path in self.folders:
            if path and path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :]):
                yield path
        for file, entry in self.files.items():
            if file.startswith(prefix) and (recursive or "/" not in file[len(prefix) :]):
                yield entry


@dataclass(frozen=True, slots=True)
class _Repo:
    """A repository on the allowlist, with the revisions that it answers for."""

    pairs: tuple[Allowed, ...]
    answers: Mapping[str, Allowed]  # revision → the entry that answers for it
    snapshots: Mapping[Pair, Snapshot]
    held: Mapping[str, Snapshot]  # revision or locked commit → what answers for it
    default: Revision | None  # the answer for no revision at all


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Catalog:
    """What may be served now. A request reads it once and holds on to what it got."""

    allowlist: Allowlist = field(default_factory=Allowlist)
    lock: Lock = field(default_factory=Lock)
    _repos: Mapping[RepoId, _Repo] = field(default_factory=dict)
    _spellings: Mapping[str, RepoId] = field(default_factory=dict)  # lower case → listed name

    def listed(self, repo: RepoId) -> RepoId:
        """The name under which a repository is on the list, or `repo` itself if it is not.

        It may be asked for in another case, by an alias of the allowlist, and by the name that
        the Hub gave when it was locked: the Hub redirects all of these (docs/adr, 0009).
        """
        if repo in self._repos:
            return repo
        return self._spellings.get(repo.lower(), repo)

    def snapshot(self, repo: RepoId, revision: str | None) -> Snapshot:
        """What a revision is locked to; None asks for the default revision.

        Raises: RepoNotAllowed, RevisionNotAllowed, RevisionNotPinned.
        """
        known = self._repo(repo)
        name: str = known.default or MAIN
        if revision is not None and (revision != "HEAD" or revision in known.answers):
            name = revision
        held = known.held.get(name)
        if held is not None:
            return held
        allowed = known.answers.get(name)
        if allowed is None:
            raise RevisionNotAllowed(repo, name, sorted(known.answers))
        raise RevisionNotPinned(repo, allowed.revision)

    def own(self, pair: Pair) -> Snapshot | None:
        """What is served of a listed pair itself; None if it is not listed, or not locked.

        At its commit there may be more, if another pair is locked to the same one.
        """
        known = self._repos.get(pair.repo)
        return None if known is None else known.snapshots.get(pair)

    def split(self, repo: RepoId, segments: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """Where a revision ends and a path begins, in URL segments that were decoded.

        The first segment alone is the revision if it is a known one: most clients encode its
        slashes. Otherwise the shortest run of segments that is a known revision. No segments at
        all are the revision "", which nobody can allow.
        """
        known = self._repo(repo)
        if segments and segments[0] in known.held:  # nearly always
            return segments[0], segments[1:]
        for count in range(1, len(segments) + 1):
            name = "/".join(segments[:count])
            if name == "HEAD" or name in known.answers or name in known.held:
                return name, tuple(segments[count:])
        guess = 3 if segments[:1] == ("refs",) and len(segments) > 3 else 1
        return "/".join(segments[:guess]), tuple(segments[guess:])

    def refs(self, repo: RepoId) -> Iterator[tuple[str, RefKind, CommitSha]]:
        """Every locked revision that `repo` answers for, commits excepted.

        Raises: RepoNotAllowed.
        """
        known = self._repo(repo)
        for name, allowed in sorted(known.answers.items()):
            held = known.held.get(name)
            if held is not None and held.pin.kind is not RefKind.COMMIT:
                own = name == allowed.revision
                yield name, held.pin.kind if own else RefKind.BRANCH, held.commit
            elif held is not None and name != allowed.revision:
                yield name, RefKind.BRANCH, held.commit

    def repos(self, kind: RepoType) -> Iterator[RepoId]:
        return (repo for repo in sorted(self._repos) if repo.type is kind)

    def snapshots(self) -> Iterator[Snapshot]:
        """Every pair that is locked and allowed."""
        for known in self._repos.values():
            yield from known.snapshots.values()

    def snapshots_of(self, repo: RepoId) -> Iterator[Snapshot]:
        """Of one repository. Raises: RepoNotAllowed."""
        yield from self._repo(repo).snapshots.values()

    def unlocked(self) -> Iterator[Allowed]:
        """Pairs that are allowed and not locked."""
        for one in self.allowlist.allowed:
            if one.pair not in self.lock.pins:
                yield one

    def _repo(self, repo: RepoId) -> _Repo:
        known = self._repos.get(repo)
        if known is None:
            raise RepoNotAllowed(repo)
        return known


def build(allowlist: Allowlist, lock: Lock) -> Catalog:
    """The catalog of what is both allowed and locked."""
    by_repo: dict[RepoId, list[Allowed]] = {}
    for one in allowlist.allowed:
        by_repo.setdefault(one.repo, []).append(one)
    with locks.nothing_to_collect():
        repos = {repo: _build_repo(tuple(ones), lock) for repo, ones in by_repo.items()}
    return Catalog(allowlist, lock, repos, _spellings(repos))


def _spellings(repos: Mapping[RepoId, _Repo]) -> dict[str, RepoId]:
    """What else the listed names are called. What could mean two of them means none."""
    found: dict[str, RepoId] = {}
    for names in (_own_names(repos), _other_names(repos)):
        claims: dict[str, set[RepoId]] = {}
        for name, repo in names:
            claims.setdefault(name.lower(), set()).add(repo)
        for spelling, claimed in claims.items():
            if len(claimed) == 1:
                found.setdefault(spelling, *claimed)
    return found


def _own_names(repos: Mapping[RepoId, _Repo]) -> Iterator[tuple[RepoId, RepoId]]:
    return ((repo, repo) for repo in repos)


def _other_names(repos: Mapping[RepoId, _Repo]) -> Iterator[tuple[RepoId, RepoId]]:
    for repo, known in repos.items():
        for one in known.pairs:
            yield from ((alias, repo) for alias in one.aliases)
        for snapshot in known.snapshots.values():
            name = snapshot.info.get("id")
            if isinstance(name, str) and name != repo.name:
                with suppress(InvalidName):
                    yield RepoId.of(repo.type, name), repo


def _build_repo(pairs: tuple[Allowed, ...], lock: Lock) -> _Repo:
    snapshots = {
        one.pair: _build_snapshot(one, lock.pins[one.pair])
        for one in pairs
        if one.pair in lock.pins
    }
    answers: dict[str, Allowed] = {one.revision: one for one in pairs}
    for one in pairs:
        for name in one.serve_as or ():
            answers.setdefault(name, one)
    if len(pairs) == 1 and pairs[0].serve_as != ():
        answers.setdefault(MAIN, pairs[0])
    default: Revision | None = MAIN if MAIN in answers else None
    if len(pairs) == 1 and pairs[0].serve_as != ():
        default = pairs[0].revision
    held: dict[str, Snapshot] = {}
    for snapshot in snapshots.values():
        before = held.get(snapshot.commit)
        held[snapshot.commit] = snapshot if before is None else _joined(before, snapshot)
    for revision, allowed in answers.items():
        if allowed.pair in snapshots:
            held.setdefault(revision, snapshots[allowed.pair])
    return _Repo(pairs, answers, snapshots, held, default)


def _joined(first: Snapshot, second: Snapshot) -> Snapshot:
    """What two pairs with one commit and other filters have there together.

    Clients ask what a revision means and then fetch by commit, so whatever either pair promises has
    to be found. All else is the first one's.
    """
    files = {**second.files, **first.files}
    if len(files) == len(first.files):
        return first
    print_ = locks.fingerprint(files.values())
    return Snapshot(first.pin, first.allowed, files, _folders(files), print_)


def _build_snapshot(allowed: Allowed, pin: Pin) -> Snapshot:
    if allowed.fits(pin):
        return Snapshot(pin, allowed, pin.files, _folders(pin.files), pin.fingerprint)
    # A filter tightened since the lock was written holds at once.
    files = {path: one for path, one in pin.files.items() if allowed.admits(one.path)}
    return Snapshot(pin, allowed, files, _folders(files), locks.fingerprint(files.values()))


def _folders(files: Mapping[str, Entry]) -> dict[str, GitOid]:
    """Every folder with its tree id; the top is ""."""
    contents: dict[str, dict[str, tuple[GitOid, bool]]] = {"": {}}
    for path, entry in files.items():
        folder, _, name = path.rpartition("/")
        parent = folder
        while parent not in contents:
            contents[parent] = {}
            parent = parent.rpartition("/")[0]
        contents[folder][name] = (entry.git_oid, False)
    oids: dict[str, GitOid] = {}
    for folder in sorted(contents, key=lambda one: -one.count("/") if one else 1):
        children = contents[folder]
        oids[folder] = gitoid.tree_oid((name, oid, sub) for name, (oid, sub) in children.items())
        if folder:
            parent, _, name = folder.rpartition("/")
            contents[parent][name] = (oids[folder], True)
    return dict(sorted(oids.items()))
