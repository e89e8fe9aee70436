"""`hf`, the Hub's command line: what it downloads, lists and checks."""

from __future__ import annotations

import json

from tests.e2e.conftest import MakeDevice
from tests.e2e.device import digests, truth
from tests.e2e.marks import E2E, only
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import World

pytestmark = E2E

hf = only("hf-2.3.0")


@hf
def test_lists_are_the_locked_ones(
    site: MirrorProcess, honest: HubProcess, device: MakeDevice, world: World
) -> None:
    honest.reset()
    machine = device(site.url)
    models = machine.hf("models", "ls", "-q")
    assert {*models.stdout.split()} == {"acme/many", "acme/tiny", "solo"}, models.stderr
    found = machine.hf("models", "ls", "--search", "TINY", "--author", "acme", "-q")
    assert found.stdout.split() == ["acme/tiny"], found.stderr
    datasets = machine.hf("datasets", "ls", "-q")
    assert {*datasets.stdout.split()} == {"acme/csvdata", "acme/nocard"}, datasets.stderr
    spaces = machine.hf("spaces", "ls", "-q")
    assert spaces.stdout.split() == ["acme/app"], spaces.stderr
    files = machine.hf("models", "ls", "acme/tiny", "-R", "--revision", "v1.0", "-q")
    listed = {line for line in files.stdout.splitlines() if not line.endswith("/")}
    assert listed == {*world.repo("acme/tiny").at("v1.0").files}, files.stderr
    many = machine.hf("models", "ls", "acme/many", "-R", "-q")
    assert many.stdout.count(".txt\n") == 2500, many.stderr
    assert honest.requests() == []


@hf
def test_info_and_card_are_the_locked_ones(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    machine = device(site.url)
    info = machine.hf("models", "info", "acme/tiny", "--revision", "v1.0", "--json")
    assert info.status == 0, info.stderr
    assert json.loads(info.stdout)["sha"] == world.repo("acme/tiny").at("v1.0").sha
    card = machine.hf("models", "card", "acme/tiny")
    assert "# tiny at main" in card.stdout, card.stderr


@hf
def test_a_file_is_copied_out_of_a_repository(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    machine = device(site.url)
    done = machine.hf("cp", "hf://acme/tiny/onnx/model.onnx", "here.onnx")
    assert done.status == 0, done.stderr
    right = world.repo("acme/tiny").at("main").files["onnx/model.onnx"].digest.hex
    assert digests(machine.home)["here.onnx"] == right


@hf
def test_a04_a_download_into_a_folder_is_verified_there(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    machine = device(site.url)
    source = truth(world.repo("datasets/acme/csvdata").at("main"))
    arguments = ("acme/csvdata", "--repo-type", "dataset", "--local-dir", "d")
    done = machine.hf("download", *arguments)
    assert done.status == 0, done.stderr
    assert digests(machine.home / "d") == source
    verified = machine.hf("cache", "verify", *arguments, "--fail-on-missing-files")
    assert verified.status == 0, verified.stdout + verified.stderr


@hf
def test_a34_a_changed_file_does_not_verify(site: MirrorProcess, device: MakeDevice) -> None:
    machine = device(site.url)
    arguments = ("acme/tiny", "--revision", "v1.0", "--local-dir", "d")
    assert machine.hf("download", *arguments).status == 0
    weights = machine.home / "d" / "model.safetensors"
    with weights.open("r+b") as file:
        file.write(b"other")
    done = machine.hf("cache", "verify", *arguments)
    assert done.status != 0
    assert "model.safetensors" in done.stdout + done.stderr
