"""K01-K05: what operators write, and what they leave lying about."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.control import HubControl
from tests.faults.bench import ALLOW, BIG, REPO, SMALL, Bench, until
from tests.faults.client import RIGHT, ask
from tests.faults.crowd import Crowd, Job
from tests.faults.mirror import MirrorProcess
from tests.faults.refusals import Ended, serve_each

_NOBODY = 65534


class Desk:
    """A folder with an operator's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.write("hubpin.yaml", "listen: 127.0.0.1:0\ndata: data\nkeep_free: 1MiB\n")
        self.write("allowlist.yaml", "allow: []\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    @property
    def config(self) -> Path:
        return self.folder / "hubpin.yaml"


@pytest.fixture
def desks(tmp_path: Path) -> Callable[[], Desk]:
    numbers = iter(range(1000))
    return lambda: Desk(tmp_path / str(next(numbers)))


BROKEN = {
    "a quote that is not closed": ("hubpin.yaml", 'listen: "127.0.0.1:0\ndata: x\n', ""),
    "half a list": ("hubpin.yaml", "upstreams:\n  - url: http://a\n  -\n", "3"),
    "a tab": ("hubpin.yaml", "timeouts:\n\tread: 1s\n", "2"),
    "an empty host": ("hubpin.yaml", "listen: :0\n", "1"),
    "half an allowlist": ("allowlist.yaml", "allow:\n  - acme/model@main\n  - repo: [a\n", ""),
    "no list": ("allowlist.yaml", "allow: acme/model@main\n", "1"),
    "a lock that was cut": ("allowlist.lock", '{"version": 1, "pairs": {', ""),
    "a lock that is no lock": ("allowlist.lock", "[]\n", ""),
}
MEANT = {
    "a key twice": ("hubpin.yaml", "data: a\ndata: b\n", "2", "data"),
    "an unknown key": ("hubpin.yaml", "data: a\nlisten_on: b\n", "2", "listen_on"),
    "a wrong type": ("hubpin.yaml", "data: a\ntimeouts: 5\n", "2", "timeouts"),
    "a unit that is none": ("hubpin.yaml", "keep_free: 5 apples\n", "1", "keep_free"),
    "no for a switch": ("hubpin.yaml", "offline: no\n", "1", "offline"),
    "an unknown key of a pair": (
        "allowlist.yaml", "allow:\n  - repo: a/b\n    revision: c\n    includ: [x]\n", "4", "includ"
    ),
    "a pair twice": ("allowlist.yaml", "allow:\n  - a/b@main\n  - a/b@main\n", "3", "a/b@main"),
    "a tag of YAML": ("allowlist.yaml", "allow:\n  - !!python/name:os.system x\n", "2", "tag"),
    "two documents": ("allowlist.yaml", "allow: []\n---\nallow: []\n", "", "document"),
}  # fmt: skip
BOMBS = {
    "aliases": "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nallow: *c\n",
    "5,000 lists in lists": "allow: " + "[" * 5000 + "]" * 5000 + "\n",
    "5,000 mappings in mappings": "allow: " + "{a: " * 5000 + "}" * 5000 + "\n",
    "a number of 5,000 digits": "allow: " + "9" * 5000 + "\n",
    "100 MB": "",  # written by the test
}


def refusals(desks: Callable[[], Desk], cases: Mapping[str, tuple[str, ...]]) -> list[Ended]:
    """How a server ends for each file and text, in order."""
    made = []
    for file, text, *_ in cases.values():
        desk = desks()
        desk.write(file, text)
        made.append(desk)
    return serve_each([desk.config for desk in made])


@pytest.mark.row("K01", behaviour="Exit status 2, and the file and the line in one sentence.")
def test_k01_a_broken_file_is_named(desks: Callable[[], Desk]) -> None:
    """hubpin.yaml, the allowlist or the lock is not what its format says, at the start."""
    for (name, case), ended in zip(BROKEN.items(), refusals(desks, BROKEN), strict=True):
        file, _, line = case
        assert ended.status == 2, (name, ended.said)
        assert f"{file}:{line}" in ended.said, (name, ended.said)
        assert "Traceback" not in ended.said


@pytest.mark.row("K01", behaviour="The old one stays in force, and /-/status and a metric say so.")
def test_k01_a_broken_edit_changes_nothing(bench: Bench) -> None:
    """The allowlist is broken while the server runs, as by a half-written save."""
    good = bench.mirror.allowlist.read_text()
    assert bench.get(SMALL) is RIGHT
    for broken in (good[: len(good) // 2] + "\n  - [", "allow:\n  - a/b@main\n  - a/b@main\n"):
        bench.mirror.allowlist.write_text(broken)
        until("it is noticed", lambda: bench.mirror.metric("hubpin_catalog_stale") == 1)
        assert "allowlist.yaml" in str(bench.mirror.status["catalog_error"])
        assert bench.get(SMALL) is RIGHT
        bench.mirror.allowlist.write_text(good)
        until("it is in force", lambda: bench.mirror.metric("hubpin_catalog_stale") == 0)


@pytest.mark.row("K02", behaviour="Exit status 2, and the file, the line and the key.")
def test_k02_what_cannot_be_meant_is_refused(desks: Callable[[], Desk]) -> None:
    """A key twice, an unknown key, a wrong type, a pair twice, two documents."""
    for (name, case), ended in zip(MEANT.items(), refusals(desks, MEANT), strict=True):
        file, _, line, word = case
        assert ended.status == 2, (name, ended.said)
        assert f"{file}:{line}" in ended.said, (name, ended.said)
        assert word in ended.said, (name, ended.said)


@pytest.mark.row("K02", behaviour="They are the strings that were written.")
def test_k02_a_revision_is_read_as_it_is_written(
    hub: HubControl, start: Callable[..., MirrorProcess]
) -> None:
    """Revisions called `no`, `0123456`, `1.10` and `2024-01-01`."""
    names = ("no", "0123456", "1.10", "2024-01-01")
    for name in names:
        hub.tag(REPO, name)
    mirror = start(
        hub, locked=False, settings={"auto_lock": "off"},
        allow=tuple(f"{{repo: {REPO}, revision: {name}}}" for name in names),
    )  # fmt: skip
    assert mirror.command("lock").returncode == 0
    for name in names:
        until("it is in force", partial(_is_served, f"{mirror.url}/{REPO}/resolve/{name}/{SMALL}"))
        assert f'"{REPO}@{name}"' in mirror.lock.read_text()


def _is_served(url: str) -> bool:
    return ask(url, method="HEAD").status == 200


@pytest.mark.row("K03", behaviour="Refused for at most 1 s of CPU and 50 MB more than any start.")
def test_k03_a_bomb_is_not_read(desks: Callable[[], Desk]) -> None:
    """Aliases of aliases, 5,000 levels, a number of 5,000 digits, a file of 100 MB."""
    large = "allow:\n" + "  - acme/model@main\n" * (5 << 20)
    cases = {"nothing special": ("hubpin.yaml", "data: [")}
    cases |= {name: ("allowlist.yaml", text or large) for name, text in BOMBS.items()}
    usual, *found = refusals(desks, cases)
    for name, ended in zip(BOMBS, found, strict=True):
        assert ended.status == 2, (name, ended.said[:500])
        assert "Traceback" not in ended.said, name
        assert len(ended.said) < 2000, name
        assert ended.seconds < usual.seconds + 1, name
        assert ended.memory < usual.memory + (50 << 20), name


@pytest.mark.row("K04", behaviour="Exit status 2, and the sentence that says what to do.")
def test_k04_files_that_are_not_as_they_should_be(desks: Callable[[], Desk]) -> None:
    """The token file is missing, readable by all or empty; the data directory is a file, cannot be
    made or belongs to somebody else."""
    config = "listen: 127.0.0.1:0\ndata: {data}\nupstreams:\n  - url: https://127.0.0.1:9\n"
    token = config.format(data="data") + "    token_file: token\n"
    cases = {}
    for name in ("missing", "readable", "empty", "file", "under a file", "foreign", "linked"):
        desk = desks()
        file = desk.folder / "token"
        if name in ("readable", "empty"):
            file.write_text("hf_x" if name == "readable" else "\n")
            file.chmod(0o644 if name == "readable" else 0o600)
        desk.write("hubpin.yaml", token)
        if name == "file":
            desk.write("hubpin.yaml", config.format(data="data"))
            desk.write("data", "")
        if name == "under a file":
            desk.write("hubpin.yaml", config.format(data="allowlist.yaml/data"))
        if name in ("foreign", "linked"):
            desk.write("hubpin.yaml", config.format(data="data"))
            other = desk.folder / ("data" if name == "foreign" else "elsewhere")
            other.mkdir()
            os.chown(other, _NOBODY, _NOBODY)
            if name == "linked":
                (desk.folder / "data").symlink_to(other)
        cases[name] = desk
    words = {
        "missing": "token_file", "readable": "chmod 600", "empty": "does not hold one token",
        "file": "data", "under a file": "data", "foreign": "belongs to user 65534",
        "linked": "belongs to user 65534",
    }  # fmt: skip
    found = serve_each([desk.config for desk in cases.values()])
    for name, ended in zip(cases, found, strict=True):
        assert ended.status == 2, (name, ended.said)
        assert words[name] in ended.said, (name, ended.said)
        assert "Traceback" not in ended.said


@pytest.mark.row("K05", behaviour="Answers under way end right; the next one is 404.")
def test_k05_what_is_taken_off_the_list_is_served_no_more(bench: Bench) -> None:
    """A pair is removed from the allowlist while clients read its files."""
    url = "/acme/big/resolve/main/big.bin"
    bench.hub.hold("big.bin", at=BIG.size // 2)
    crowd = Crowd(bench.mirror.url + url, [Job(str(BIG.seed), BIG.size)] * 3)
    sent = BIG.size  # a third of it to each of them, at least
    until("all are served", lambda: bench.mirror.metric("hubpin_sent_bytes_total") >= sent, 60)
    bench.mirror.allow(ALLOW[0])
    until("it is refused", lambda: bench.ask(url, method="HEAD").status == 404)
    assert bench.ask(url, method="HEAD").header("X-Error-Code") == "RepoNotFound"
    bench.hub.release()
    assert crowd.outcomes() == ["right"] * 3
    assert bench.get(SMALL) is RIGHT


@pytest.mark.row("K05", behaviour="Exit status 2, naming the second one.")
def test_k05_a_name_means_one_thing(desks: Callable[[], Desk]) -> None:
    """The same revision of a repository is claimed by two entries."""
    desk = desks()
    desk.write(
        "allowlist.yaml",
        "allow:\n"
        "  - {repo: a/b, revision: v1, serve_as: [main]}\n"
        "  - {repo: a/b, revision: v2, serve_as: [main]}\n",
    )
    (ended,) = serve_each([desk.config])
    assert ended.status == 2
    assert "allowlist.yaml:3" in ended.said
