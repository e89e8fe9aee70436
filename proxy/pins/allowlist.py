"""allowlist.yaml: what this mirror may serve.

allow:
  - org/model@main                    # short form: repo@revision
  - repo: datasets/org/data           # long form
    revision: v1.0
    serve_as: [main]                  # other revisions that this pair answers for
    include: ["*.json"]               # files that are locked and served; none: all of them
    exclude: ["*.bin"]
    notice: "Only for research."
    share: lan                        # serve a gated or private repository to everyone here
    keep: true                        # never evicted while it is locked
    warm: true                        # a running server fetches all of it as soon as it is locked
    aliases: [datasets/data]          # older names of the repository, to which it answers
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from proxy import yamlfile
from proxy.errors import ConfigError, InvalidName
from proxy.hub.names import Pair, RepoId, RepoPath, Revision
from proxy.yamlfile import Fields, Node


@dataclass(frozen=True, slots=True)
class Allowed:
    """One pair that may be served."""

    repo: RepoId
    revision: Revision
    line: int
    serve_as: tuple[Revision, ...] | None = None  # None: nothing said, the default rule holds
    include: tuple[str, ...] = ()  # empty: everything
    exclude: tuple[str, ...] = ()
    notice: str = ""
    share_lan: bool = False
    keep: bool = False
    warm: bool = False
    aliases: tuple[RepoId, ...] = ()  # other names of the repository

    @property
    def pair(self) -> Pair:
        return Pair.of(self.repo, self.revision)

    def admits(self, path: RepoPath) -> bool:
        """Whether this file is locked and served.

        Patterns are the ones of `hf download --include`: `*` also matches a slash, and a trailing
        slash means the whole folder (huggingface_hub, utils/_paths.py, filter_repo_objects).
        """
        return (not self.include or _matches(path, self.include)) and not _matches(
            path, self.exclude
        )


@dataclass(frozen=True, slots=True)
class Allowlist:
    """What a human wants served, in the order in which it was written."""

    allowed: tuple[Allowed, ...] = ()

    def of(self, repo: RepoId) -> tuple[Allowed, ...]:
        return tuple(one for one in self.allowed if one.repo == repo)

    def get(self, pair: Pair) -> Allowed | None:
        return next((one for one in self.allowed if one.pair == pair), None)


def load(file: Path) -> Allowlist:
    """Raises: ConfigError, with the line."""
    return parse(yamlfile.read(file), file)


def loads(text: str, file: Path | str = "allowlist.yaml") -> Allowlist:
    """Raises: ConfigError, with the line."""
    return parse(yamlfile.parse(text, file), file)


def parse(root: Node, file: Path | str) -> Allowlist:
    fields = Fields(root, file, "the allowlist")
    node = fields.node("allow")
    fields.done()
    if node is None or node.text == "":
        return Allowlist()
    if node.items is None:
        raise ConfigError(file, node.line, f"allow: must be a list, not {node.kind}")
    allowed = tuple(_entry(item, file) for item in node.items)
    _check_unique(allowed, file)
    _check_answers(allowed, file)
    _check_aliases(allowed, file)
    return Allowlist(allowed)


def _entry(node: Node, file: Path | str) -> Allowed:
    try:
        if node.text is not None:
            pair = Pair(node.text)
            return Allowed(pair.repo, pair.revision, node.line)
        return _long_entry(node, file)
    except InvalidName as e:
        raise ConfigError(file, node.line, str(e)) from e


def _long_entry(node: Node, file: Path | str) -> Allowed:
    fields = Fields(node, file, "an entry")
    repo, revision = fields.text("repo", ""), fields.text("revision", "")
    for key, value in (("repo", repo), ("revision", revision)):
        if not value:
            raise ConfigError(file, node.line, f"the entry has no {key!r}")
    serve_as = fields.texts("serve_as")
    for name in serve_as or ():
        if Revision(name).commit:
            raise fields.error("serve_as", f"{name} is a commit: it can only mean itself")
    share = fields.choice("share", "no", ("no", "lan"))
    allowed = Allowed(
        repo=RepoId(repo),
        revision=Revision(revision),
        line=node.line,
        serve_as=None if serve_as is None else tuple(Revision(name) for name in serve_as),
        include=fields.texts("include") or (),
        exclude=fields.texts("exclude") or (),
        notice=fields.text("notice", ""),
        share_lan=share == "lan",
        keep=fields.flag("keep", default=False),
        warm=fields.flag("warm", default=False),
        aliases=_aliases(RepoId(repo), fields),
    )
    fields.done()
    return allowed


def _aliases(repo: RepoId, fields: Fields) -> tuple[RepoId, ...]:
    aliases = tuple(RepoId(name) for name in fields.texts("aliases") or ())
    for alias in aliases:
        if alias.type is not repo.type:
            raise fields.error("aliases", f"{alias} is of another type than {repo}")
    return aliases


def _check_unique(allowed: tuple[Allowed, ...], file: Path | str) -> None:
    first: dict[Pair, int] = {}
    for one in allowed:
        if one.pair in first:
            raise ConfigError(
                file, one.line, f"{one.pair} is listed twice (first on line {first[one.pair]})"
            )
        first[one.pair] = one.line


def _check_answers(allowed: tuple[Allowed, ...], file: Path | str) -> None:
    """No two entries may answer for the same revision of a repository."""
    owner: dict[tuple[RepoId, Revision], Allowed] = {
        (one.repo, one.revision): one for one in allowed
    }
    for one in allowed:
        for name in one.serve_as or ():
            other = owner.setdefault((one.repo, name), one)
            if other is not one:
                raise ConfigError(
                    file,
                    one.line,
                    f"serve_as: {one.repo}@{name} is already answered by {other.pair} "
                    f"(line {other.line})",
                )


def _check_aliases(allowed: tuple[Allowed, ...], file: Path | str) -> None:
    """A name may stand for one repository only, however it is spelt."""
    owner = {one.repo.lower(): one.repo for one in allowed}
    for one in allowed:
        for alias in one.aliases:
            other = owner.setdefault(alias.lower(), one.repo)
            if other != one.repo:
                raise ConfigError(file, one.line, f"aliases: {alias} already stands for {other}")


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(
        fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern)
        for pattern in patterns
    )
