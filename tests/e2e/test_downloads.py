"""What devices get from a mirror is what the source has: every revision, name and size."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import MakeDevice, Tap
from tests.e2e.device import Call, digests, truth
from tests.e2e.marks import E2E, every_client, every_hub, only
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.acme import ODD_NAMES
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import World

pytestmark = E2E


@every_hub
def test_a01_a02_a_snapshot_equals_the_source(
    site: MirrorProcess, device: MakeDevice, tap: Tap, world: World
) -> None:
    wire = tap(site.url)
    got = device(wire.url).snapshot()
    assert digests(got.folder) == truth(world.repo("acme/tiny").at("main"))
    asked = [one.target for one in wire.asked]
    assert any("/resolve/" in target for target in asked)
    assert not [target for target in asked if "xet" in target]
    assert b"xet" not in wire.answered.lower()


@every_client
@pytest.mark.parametrize("revision", ["v1.0", "feature/x", "refs/pr/1"])
def test_a_snapshot_of_a_tag_a_branch_and_a_pull_request(
    site: MirrorProcess, device: MakeDevice, world: World, revision: str
) -> None:
    got = device(site.url).snapshot(revision=revision)
    assert digests(got.folder) == truth(world.repo("acme/tiny").at(revision))


@every_hub
def test_a08_a_snapshot_of_a_full_commit_that_was_locked_as_main(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    commit = world.repo("acme/tiny").at("main")
    got = device(site.url).snapshot(revision=commit.sha)
    assert digests(got.folder) == truth(commit)


@every_client
def test_a_snapshot_of_a_dataset_a_space_and_a_bare_name(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    repos = {"datasets/acme/csvdata": "dataset", "spaces/acme/app": "space", "solo": None}
    calls: list[Call] = [
        ("snapshot_download", {"repo_id": name.partition("s/")[2] or name, "repo_type": kind})
        for name, kind in repos.items()
    ]
    got = device(site.url).start(*calls).outcomes()
    for name, outcome in zip(repos, got, strict=True):
        assert digests(outcome.folder) == truth(world.repo(name).at("main"))


@only("hf-2.3.0", "hub-2.4.0", "hub-1.33.0")
def test_a04_hf_download_takes_what_the_patterns_name(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    machine = device(site.url)
    done = machine.hf(
        "download", "acme/tiny", "--revision", "v1.0", "--include", "*.json", "--local-dir", "d"
    )
    assert done.status == 0, done.stderr
    source = truth(world.repo("acme/tiny").at("v1.0"))
    assert digests(machine.home / "d") == {
        path: digest for path, digest in source.items() if path.endswith(".json")
    }


@every_hub
def test_a20_a21_single_files_with_odd_names_nested_and_empty(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    names = [*ODD_NAMES, "odd/a#b?c%20d+e.bin", "empty.txt", "onnx/model.onnx"]
    calls: list[Call] = [
        ("hf_hub_download", {"repo_id": "acme/tiny", "filename": name}) for name in names
    ]
    got = device(site.url).start(*calls).outcomes()
    files = world.repo("acme/tiny").at("main").files
    for name, outcome in zip(names, got, strict=True):
        content = files[name].content
        assert outcome.folder.read_bytes() == content.read(0, content.size), name


@every_hub
def test_a24_a_repository_of_2500_files_is_listed_whole(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    got = device(site.url).call("list_repo_files", repo_id="acme/many")
    assert got.value == sorted(world.repo("acme/many").at("main").files)


@only("hub-2.4.0")
def test_a_snapshot_of_2500_files(site: MirrorProcess, device: MakeDevice, world: World) -> None:
    got = device(site.url).snapshot("acme/many", max_workers=4)
    assert digests(got.folder) == truth(world.repo("acme/many").at("main"))


@every_hub
def test_a25_an_endpoint_with_a_trailing_slash(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    calls: list[Call] = [
        ("snapshot_download", {"repo_id": "acme/tiny"}),
        ("snapshot_download", {"repo_id": "acme/csvdata", "repo_type": "dataset"}),
    ]
    tiny, data = device(f"{site.url}/").start(*calls).outcomes()
    assert digests(tiny.folder) == truth(world.repo("acme/tiny").at("main"))
    assert digests(data.folder) == truth(world.repo("datasets/acme/csvdata").at("main"))


@every_hub
def test_a26_a28_paths_and_refs_are_the_locked_ones(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    tiny = world.repo("acme/tiny")
    paths = ["config.json", "model.safetensors", "onnx", "missing.txt"]
    calls: list[Call] = [
        ("get_paths_info", {"repo_id": "acme/tiny", "paths": paths}),
        ("list_repo_refs", {"repo_id": "acme/tiny", "include_pull_requests": True}),
    ]
    info, refs = device(site.url).start(*calls).outcomes()
    assert isinstance(info.value, list), info.trace
    assert {one["path"] for one in info.value} == {*paths} - {"missing.txt"}
    weights = next(one for one in info.value if one["path"] == "model.safetensors")
    assert weights["lfs"]["sha256"] == tiny.at("main").files["model.safetensors"].digest.hex
    assert isinstance(refs.value, dict), refs.trace
    branches = {one["name"]: one["target_commit"] for one in refs.value["branches"]}
    assert branches == {name: tiny.at(name).sha for name in ("main", "feature/x")}
    assert [one["target_commit"] for one in refs.value["tags"]] == [tiny.at("v1.0").sha]
    pulls = refs.value["pull_requests"]
    assert [one["ref"] for one in pulls] == ["refs/pr/1"]


@only("hf-2.3.0", "hub-2.4.0", "hub-1.33.0")
def test_a34_the_client_verifies_what_it_holds_against_the_mirror(
    site: MirrorProcess, device: MakeDevice
) -> None:
    machine = device(site.url)
    assert not machine.snapshot().error
    done = machine.hf("cache", "verify", "acme/tiny", "--fail-on-missing-files")
    assert done.status == 0, done.stdout + done.stderr


@every_client
def test_everything_known_is_answered_without_the_upstream(
    site: MirrorProcess, honest: HubProcess, device: MakeDevice
) -> None:
    honest.reset()
    calls: list[Call] = [
        ("list_repo_files", {"repo_id": "acme/many"}),
        ("model_info", {"repo_id": "acme/tiny", "files_metadata": True}),
        ("repo_exists", {"repo_id": "acme/tiny"}),
        ("file_exists", {"repo_id": "acme/tiny", "filename": "config.json"}),
    ]
    got = device(site.url).start(*calls).outcomes()
    assert not [one.trace for one in got if one.error]
    assert [one.value for one in got[2:]] == [True, True]
    assert honest.requests() == []
