"""git and git-lfs clone what is locked, and are told in words what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e import tools
from tests.e2e.conftest import MakeMirror
from tests.e2e.device import Ended, digests, truth
from tests.e2e.marks import E2E, GIT, HFD
from tests.e2e.mirrors import CONTACT, MirrorProcess
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.rawclient import Answer
from tests.fakes.world import World, lfs, regular

pytestmark = [*E2E, pytest.mark.usefixtures("programs")]

REFUSED = "remote: acme/other is not on this mirror's allowlist"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A device whose git would ask for a password by leaving a note that it asked."""
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    askpass.chmod(0o755)
    assert tools.run("git", "lfs", "install", home=tmp_path).status == 0
    return tmp_path


def git(home: Path, *arguments: str, fails: bool = False, **variables: str) -> Ended:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": str(home / "askpass")}
    done = tools.run("git", *arguments, home=home, variables={**quiet, **variables})
    assert (done.status != 0) == fails, done.stderr
    assert not (home / "asked").exists()
    return done


def content(folder: Path) -> dict[str, str]:
    """Of a clone, without what is git's own or was added for git-lfs."""
    return {
        path: digest
        for path, digest in digests(folder).items()
        if not path.startswith(".git/") and path != ".gitattributes"
    }


@pytest.mark.case("A33", client=GIT)
@pytest.mark.parametrize("version", ["0", "1", "2"])
@pytest.mark.parametrize("suffix", ["", ".git"])
def test_a33_a_clone_equals_the_source(
    site: MirrorProcess, home: Path, world: World, version: str, suffix: str
) -> None:
    url = f"{site.url}/acme/tiny{suffix}"
    git(home, "-c", f"protocol.version={version}", "clone", url, "c")
    assert content(home / "c") == truth(world.repo("acme/tiny").at("main"))
    assert git(home, "-C", "c", "status", "--porcelain").stdout == ""
    git(home, "-C", "c", "fsck", "--full", "--strict")


@pytest.mark.case("A33", client=GIT)
@pytest.mark.parametrize("revision", ["v1.0", "feature/x"])
@pytest.mark.parametrize("option", ["--depth=1", "--filter=blob:none", "--single-branch"])
def test_a33_other_revisions_and_ways_to_clone(
    site: MirrorProcess, home: Path, world: World, revision: str, option: str
) -> None:
    for version in ("0", "2"):
        git(
            home, "-c", f"protocol.version={version}", "clone", option, "-b", revision,
            f"{site.url}/acme/tiny", f"c{version}",
        )  # fmt: skip
        assert content(home / f"c{version}") == truth(world.repo("acme/tiny").at(revision))


@pytest.mark.case("A33", client=GIT)
def test_a33_a_pull_request_a_dataset_a_bare_name_and_2500_files(
    site: MirrorProcess, home: Path, world: World
) -> None:
    for name in ("datasets/acme/csvdata", "solo", "acme/many"):
        git(home, "clone", f"{site.url}/{name}", f"of-{name}")
        assert content(home / f"of-{name}") == truth(world.repo(name).at("main"))
    git(home, "init", "-q", "p")
    git(home, "-C", "p", "fetch", f"{site.url}/acme/tiny", "refs/pr/1")
    said = git(home, "-C", "p", "show", "FETCH_HEAD:config.json").stdout
    assert json.loads(said)["revision_of_the_fixture"] == "refs/pr/1"


@pytest.mark.case("A33", client=GIT)
def test_a33_the_commit_names_the_hubs_and_is_the_same_everywhere(
    site: MirrorProcess, start_mirror: MakeMirror, home: Path, world: World
) -> None:
    other = start_mirror("acme/tiny@main")
    ids = {git(home, "ls-remote", f"{one.url}/acme/tiny", "main").stdout for one in (site, other)}
    assert len(ids) == 1
    git(home, "clone", "-q", f"{other.url}/acme/tiny", "c", GIT_LFS_SKIP_SMUDGE="1")
    message = git(home, "-C", "c", "log", "-1", "--format=%B").stdout
    assert f"Hub-Commit: {world.repo('acme/tiny').at('main').sha}" in message
    assert other.pair("acme/tiny@main")["fingerprint"] in message
    symbolic = git(home, "ls-remote", "--symref", f"{other.url}/acme/tiny", "HEAD").stdout
    assert symbolic.startswith("ref: refs/heads/main\tHEAD")


@pytest.mark.case("A33", client=HFD)
def test_the_2024_edition_clones_first_and_fetches_large_files_by_name(
    site: MirrorProcess, home: Path, world: World
) -> None:
    git(home, "clone", f"{site.url}/solo", "c", GIT_LFS_SKIP_SMUDGE="1")
    assert git(home, "-C", "c", "lfs", "ls-files", "-n").stdout.split() == ["model.bin"]
    url = f"{site.url}/solo/resolve/main/model.bin"
    (home / "c" / "model.bin").unlink()
    assert tools.run("wget", "-nv", "-c", url, home=home / "c").status == 0
    assert content(home / "c") == truth(world.repo("solo").at("main"))


@pytest.mark.case("A33", client=GIT)
def test_a33_what_is_refused_is_said_and_nobody_is_asked_for_a_password(
    site: MirrorProcess, home: Path, honest: HubProcess
) -> None:
    honest.reset()
    for version in ("0", "2"):
        url = f"{site.url}/acme/other"
        said = git(home, "-c", f"protocol.version={version}", "clone", url, fails=True).stderr
        assert REFUSED in said
        assert CONTACT in said
    git(home, "clone", "-q", f"{site.url}/solo", "c")
    said = git(home, "-C", "c", "push", "origin", "main", fails=True).stderr
    assert "remote: this mirror is read-only" in said
    git(home, "-C", "c", "config", "lfs.url", f"{site.url}/acme/other.git/info/lfs")
    (home / "c" / "model.bin").unlink()
    said = git(home, "-C", "c", "-c", "lfs.storage=other", "lfs", "pull", fails=True).stderr
    assert "acme/other is not on this mirror's allowlist" in said
    assert honest.requests() == []


@pytest.mark.case("A33", client=GIT)
def test_a33_a_moved_lock_is_fetched_and_a_clone_works_offline(
    start_mirror: MakeMirror, upstream: HubProcess, home: Path
) -> None:
    mirror = start_mirror("solo@main")
    git(home, "clone", f"{mirror.url}/solo", "c")
    upstream.commit("solo", {"new.txt": regular("new\n"), "new.bin": lfs(Content("new", 9000))})
    assert mirror.command("lock", "--update", "solo@main").status == 0
    commit = upstream.sha("solo")
    mirror.wait_until(lambda: mirror.pair("solo@main")["commit"] == commit)
    git(home, "-C", "c", "fetch")
    git(home, "-C", "c", "reset", "--hard", "origin/main")
    assert digests(home / "c")["new.bin"] == Content("new", 9000).sha256()
    upstream.refuse()
    mirror.stop()
    mirror.start()
    git(home, "clone", f"{mirror.url}/solo", "d")
    assert content(home / "d") == content(home / "c")


@pytest.mark.case("A33", client=GIT)
def test_a33_objects_of_other_repositories_are_not_handed_out(site: MirrorProcess) -> None:
    oid = Content("solo", 100_000).sha256()
    for repo, key in (("solo", "actions"), ("acme/tiny", "error")):
        answer = Answer(
            f"{site.url}/{repo}.git/info/lfs/objects/batch", method="POST",
            body=json.dumps({"operation": "download", "objects": [{"oid": oid, "size": 1}]}),
            headers={"X-Forwarded-Proto": "https"},
        )  # fmt: skip
        assert answer.headers["content-type"] == "application/vnd.git-lfs+json"
        assert isinstance(answer.json, dict)
        (found,) = answer.json["objects"]
        assert key in found
        if key == "actions":
            href = found["actions"]["download"]["href"]
            assert href.startswith(site.url.replace("http:", "https:") + "/solo/resolve/")
    upload = Answer(
        f"{site.url}/solo.git/info/lfs/objects/batch", method="POST",
        body=json.dumps({"operation": "upload", "objects": [{"oid": oid, "size": 1}]}),
    )  # fmt: skip
    assert upload.status == 403
