"""HfFileSystem: what reads a repository in place, and asks for ranges without checking for 206."""

from __future__ import annotations

from tests.e2e.conftest import MakeDevice, Tap
from tests.e2e.device import Call
from tests.e2e.marks import E2E, every_hub
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.acme import ODD_NAMES
from tests.fakes.world import World

pytestmark = E2E

WEIGHTS = "model.safetensors"


@every_hub
def test_a14_bytes_from_the_middle_of_a_file(
    site: MirrorProcess, device: MakeDevice, tap: Tap, world: World
) -> None:
    wire = tap(site.url)
    tiny = world.repo("acme/tiny")
    size = tiny.at("main").files[WEIGHTS].size
    places = [("main", 100_000), ("v1.0", 100_000), ("refs/pr/1", size - 5), ("feature/x", 0)]
    calls = [
        _call(
            "read", path=f"acme/tiny@{revision.replace('/', '%2F')}/{WEIGHTS}", start=at, length=10
        )
        for revision, at in places
    ]
    for (revision, at), got in zip(places, device(wire.url).start(*calls).outcomes(), strict=True):
        right = tiny.at(revision).files[WEIGHTS].content.read(at, at + 10)
        assert got.value == right.hex(), got.trace
    assert b"HTTP/1.1 206 " in wire.answered


@every_hub
def test_files_with_odd_names_are_read(
    site: MirrorProcess, device: MakeDevice, world: World
) -> None:
    calls = [_call("read_text", path=f"acme/tiny/{name}") for name in (*ODD_NAMES, "empty.txt")]
    got = device(site.url).start(*calls).outcomes()
    assert [one.value for one in got] == [*(f"{name} at main\n" for name in ODD_NAMES), ""]


@every_hub
def test_folders_are_listed_and_patterns_found(site: MirrorProcess, device: MakeDevice) -> None:
    calls = [
        _call("glob", pattern="acme/tiny@v1.0/**/*.json"),
        _call("glob", pattern="datasets/acme/csvdata/*.csv"),
        _call("ls", path="acme/tiny/onnx"),
        _call("info", path="acme/tiny/onnx/model.onnx"),
        _call("info", path="acme/many/part-07"),
        _call("glob", pattern="acme/many/part-07/*"),
        _call("glob", pattern="acme/tiny/nothing/*"),
    ]
    nested, csv, onnx, file, folder, many, nothing = device(site.url).start(*calls).outcomes()
    names = ("config.json", "sub/dir/deep/er/file.json", "tokenizer.json", "tokenizer_config.json")
    assert nested.value == [f"acme/tiny@v1.0/{name}" for name in names], nested.trace
    assert csv.value == ["datasets/acme/csvdata/data.csv"], csv.trace
    assert onnx.value == ["acme/tiny/onnx/model.onnx"], onnx.trace
    assert file.value == {"size": 70_000, "type": "file"}, file.trace
    assert folder.value == {"size": 0, "type": "directory"}, folder.trace
    assert isinstance(many.value, list), many.trace
    assert len(many.value) == 100
    assert nothing.value == [], nothing.trace


def _call(name: str, **arguments: object) -> Call:
    return f"with_filesystem.{name}", arguments
