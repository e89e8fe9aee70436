"""What is not served, is refused in words that reach the person in front of the device."""

from __future__ import annotations

import socket

import pytest

from tests.e2e.clients import WARNING_HUBS
from tests.e2e.conftest import MakeDevice
from tests.e2e.device import Call, digests, truth
from tests.e2e.marks import E2E, every_client, every_hub, only
from tests.e2e.mirrors import CONTACT, MirrorProcess
from tests.fakes.hub_process import HubProcess
from tests.fakes.rawclient import Answer, exchange
from tests.fakes.world import World

pytestmark = E2E

SENTENCE = "acme/other is not on this mirror's allowlist"


@every_client
def test_a05_the_command_line_shows_our_sentence(site: MirrorProcess, device: MakeDevice) -> None:
    done = device(site.url).hf("download", "acme/other")
    assert done.status != 0
    assert SENTENCE in done.stderr
    assert CONTACT in done.stderr


@every_hub
def test_a06_a_file_of_a_repository_that_is_not_listed(
    site: MirrorProcess, honest: HubProcess, device: MakeDevice
) -> None:
    honest.reset()
    got = device(site.url).file("config.json", "acme/other")
    assert got.error == "RepositoryNotFoundError", got.trace
    assert SENTENCE in got.text
    assert CONTACT in got.text
    assert got.seconds < 2
    assert honest.requests() == []


@every_hub
def test_a07_a_revision_that_is_not_listed(
    site: MirrorProcess, honest: HubProcess, device: MakeDevice
) -> None:
    honest.reset()
    got = device(site.url).snapshot(revision="v9")
    assert got.error == "RevisionNotFoundError", got.trace
    assert "acme/tiny@v9 is not on this mirror's allowlist" in got.text
    assert "Allowed revisions: feature/x, main, refs/pr/1, v1.0" in got.text
    assert CONTACT in got.text
    assert honest.requests() == []


@only(*WARNING_HUBS)
def test_a_revision_that_is_not_listed_on_the_command_line(
    site: MirrorProcess, device: MakeDevice
) -> None:
    done = device(site.url).hf("download", "acme/tiny", "--revision", "v9")
    assert done.status != 0
    assert "Allowed revisions: feature/x, main, refs/pr/1, v1.0" in done.stderr
    assert CONTACT in done.stderr


@every_client
def test_a_file_that_the_commit_does_not_have(site: MirrorProcess, device: MakeDevice) -> None:
    machine = device(site.url)
    got = machine.file("missing.json")
    assert "EntryNotFoundError" in got.kinds, got.trace
    # The client remembers what a commit does not have, and does not ask again.
    assert list(machine.hf_home.glob("hub/models--acme--tiny/.no_exist/*/missing.json"))


@every_client
def test_a37_what_is_taken_off_the_list_stays_on_devices_that_have_it(
    mirror: MirrorProcess, device: MakeDevice, world: World, client: str
) -> None:
    machine = device(mirror.url)
    assert not machine.snapshot().error
    mirror.allow("solo@main")
    mirror.wait_locked("solo@main")
    again = machine.snapshot()
    assert digests(again.folder) == truth(world.repo("acme/tiny").at("main"))
    if client in WARNING_HUBS:
        assert "acme/tiny is not on this mirror's allowlist" in again.stderr


@every_client
def test_a38_an_upload_is_told_that_the_mirror_is_read_only(
    site: MirrorProcess, honest: HubProcess, device: MakeDevice
) -> None:
    honest.reset()
    machine = device(site.url, HF_TOKEN="hf_whatever")
    file = machine.home / "file.txt"
    file.write_text("mine")
    calls: list[Call] = [
        ("create_repo", {"repo_id": "acme/mine"}),
        (
            "upload_file",
            {"repo_id": "acme/tiny", "path_or_fileobj": str(file), "path_in_repo": "f.txt"},
        ),
    ]
    for got in machine.start(*calls).outcomes():
        assert got.error, got.value
        assert "this mirror is read-only" in got.text, got.trace
    assert honest.requests() == []


@pytest.mark.parametrize(
    "target",
    [
        "/acme/tiny/resolve/main/..%2f..%2f..%2fetc/passwd",
        "/acme/tiny/resolve/main/../../../../etc/passwd",
        "/acme/tiny/resolve/main/%2e%2e/%2e%2e/etc/passwd",
        "/acme/tiny/resolve/main//etc/passwd",
        "/acme/tiny/resolve/main/..%5c..%5cetc%5cpasswd",
        "/acme/tiny/resolve/main/config.json%00.txt",
        "/acme/tiny/resolve/..%2f..%2fetc/passwd",
        "/acme%2ftiny/resolve/main/config.json",
        "/../etc/passwd",
        "/-/blobs/sha256/../../../../../etc/passwd",
        "/-/sums/../../etc/passwd",
        "//example.invalid/acme/tiny/resolve/main/config.json",
        "http://example.invalid/acme/tiny/resolve/main/config.json",
        "/http://example.invalid/acme/tiny/resolve/main/config.json",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a41_no_spelling_leads_out_of_what_is_listed(
    site: MirrorProcess, honest: HubProcess, target: str, method: str
) -> None:
    honest.reset()
    got = _raw(site, f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n")
    assert got.split(b" ", 2)[1] in (b"400", b"404"), got
    assert b"root:" not in got
    assert honest.requests() == []


@pytest.mark.parametrize("host", ["user@mirror", "a, b", "mirror/path", ""])
def test_a41_a_host_header_that_names_no_host(site: MirrorProcess, host: str) -> None:
    got = _raw(site, f"GET /api/models/acme/tiny HTTP/1.1\r\nHost: {host}\r\n")
    assert not host or got.split(b" ", 2)[1] == b"400", got


def test_a25_slashes_before_a_path_are_one(site: MirrorProcess, world: World) -> None:
    for path in ("//api/models/acme/tiny", "//datasets/acme/csvdata/resolve/main/data.csv"):
        got = exchange(f"{site.url}{path}")
        assert got.status == 200, got.head


def test_a26_paths_as_a_form_and_as_json_are_the_same(site: MirrorProcess) -> None:
    url = f"{site.url}/api/models/acme/tiny/paths-info/main"
    form = Answer(
        url, method="POST", body="paths=config.json&paths=onnx&paths=missing&expand=False",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    json = Answer(
        url, method="POST", body='{"paths":["config.json","onnx","missing"],"expand":true}',
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert form.status == json.status == 200
    assert form.json == json.json
    assert isinstance(json.json, list)
    assert [one["path"] for one in json.json] == ["config.json", "onnx"]


def _raw(site: MirrorProcess, head: str) -> bytes:
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer
