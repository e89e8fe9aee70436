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
formats:
  deny: [".bin", ".pt", ".pkl"]       # files that end so are not locked, listed or served
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from proxy import yamlfile
from proxy.errors import ConfigError, InvalidName
from proxy.hub.names import Pair, RepoId, RepoPath, Revision
from proxy.pins.lock import Pin
from proxy.yamlfile import Fields, Node

_ENDING = re.compile(r"\.[a-z0-9_.\-]{1,40}")


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
    denied: tuple[str, ...] = ()  # endings of files that are served of no repository

    @property
    def pair(self) -> Pair:
        return Pair.of(self.repo, self.revision)

    def fits(self, pin: Pin) -> bool:
        """Whether the files of a pin are those that are to be locked and served."""
        return (
            (self.include, self.exclude) == (pin.include, pin.exclude)
            and set(pin.denied) <= set(self.denied)  # else it may lack some
            and not (self.denied and any(self.denies(path) for path in pin.files))
        )

    def admits(self, path: RepoPath) -> bool:
        """Whether this file is locked and served.

        Patterns are the ones of `hf download --include`: `*` also matches a slash, and a trailing
        slash means the whole folder (huggingface_hub, utils/_paths.py, filter_repo_objects).
        """
        return (
            (not self.include or _matches(path, self.include))
            and not _matches(path, self.exclude)
            and self.denies(path) is None
        )

    def denies(self, path: str) -> str | None:
        """The ending for which no file like this is served; None if there is none."""
        return denied_ending(path, self.denied)


@dataclass(frozen=True, slots=True)
class Allowlist:
    """What a human wants served, in the order in which it was written."""

    allowed: tuple[Allowed, ...] = ()
    denied: tuple[str, ...] = ()  # each of `allowed` knows them, too

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
    denied = _denied(fields.node("formats"), file)
    fields.done()
    if node is None or node.text == "":
        return Allowlist(denied=denied)
    if node.items is None:
        raise ConfigError(file, node.line, f"allow: must be a list, not {node.kind}")
    allowed = tuple(replace(_entry(item, file), denied=denied) for item in node.items)
    _check_unique(allowed, file)
    _check_answers(allowed, file)
    _check_aliases(allowed, file)
    return Allowlist(allowed, denied)


def denied_ending(path: str, denied: Iterable[str]) -> str | None:
    """The first of some endings that a path has, in whatever case."""
    return next((ending for ending in denied if path.lower().endswith(ending)), None)


def endings(texts: Iterable[str]) -> tuple[str, ...]:
    """Endings of file names as they are compared. Raises: ValueError."""
    found = sorted({text.lower() for text in texts})
    for text in found:
        if not _ENDING.fullmatch(text):
            raise ValueError(f"{text!a} is not the end of a file name; write for example .bin")
    return tuple(found)


def _denied(node: Node | None, file: Path | str) -> tuple[str, ...]:
    if node is None:
        return ()
    fields = Fields(node, file, "formats")
    try:
        denied = endings(fields.texts("deny") or ())
    except ValueError as e:
        raise fields.error("deny", str(e)) from e
    fields.done()
    return denied


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
        include=_patterns("include", fields),
        exclude=_patterns("exclude", fields),
        notice=fields.text("notice", ""),
        share_lan=share == "lan",
        keep=fields.flag("keep", default=False),
        warm=fields.flag("warm", default=False),
        aliases=_aliases(RepoId(repo), fields),
    )
    fields.done()
    return allowed


def _patterns(key: str, fields: Fields) -> tuple[str, ...]:
    patterns = fields.texts(key) or ()
    if "" in patterns:
        raise fields.error(key, "an empty pattern matches no file")
    return patterns


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
