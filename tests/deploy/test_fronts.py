"""Through nginx and HAProxy clients get what they would get from the mirror itself."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.deploy.conftest import BIG, cold, per_address
from tests.deploy.fronts import FRONTS, OUTSIDE, Front
from tests.e2e import clients
from tests.e2e.device import Device, digests, truth, until
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.acme import ODD_NAMES, WEIGHTS_SIZE, acme_world
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120, func_only=True)]

WEIGHTS = "/acme/tiny/resolve/main/model.safetensors"
_WEIGHTS = Content("tiny main", WEIGHTS_SIZE)
# Of one connection or one moment.
_OWN = {"date", "x-request-id", "server", "connection", "keep-alive"}
_CLIENTS = ("hub-2.4.0", "hub-1.33.0", "hub-0.36.2", "hub-0.25.2")


@pytest.mark.parametrize("kind", FRONTS, ids=lambda kind: kind.name)
def test_the_program_finds_no_fault_with_the_sample(kind: type[Front], tmp_path: Path) -> None:
    done = kind(tmp_path, "http://127.0.0.1:8090").check()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "warn" not in said.lower()
    assert "alert" not in said.lower()


def test_a_whole_file(front: Front, secure: bool) -> None:
    answer = front.ask(WEIGHTS, secure=secure)
    assert (answer.status, answer.whole) == (200, True)
    assert answer.body == _WEIGHTS.read(0, WEIGHTS_SIZE)


def test_ranges(front: Front, secure: bool) -> None:
    middle = front.ask(WEIGHTS, headers={"Range": "bytes=70000-1070000"}, secure=secure)
    assert middle.status == 206
    assert middle.headers["content-range"] == f"bytes 70000-1070000/{WEIGHTS_SIZE}"
    assert middle.body == _WEIGHTS.read(70000, 1070001)
    probe = front.ask(WEIGHTS, headers={"Range": "bytes=0-0"}, secure=secure)
    assert (probe.status, probe.body) == (206, _WEIGHTS.read(0, 1))
    beyond = front.ask(WEIGHTS, headers={"Range": f"bytes={WEIGHTS_SIZE}-"}, secure=secure)
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{WEIGHTS_SIZE}")


def test_conditions(front: Front) -> None:
    etag = front.ask(WEIGHTS, method="HEAD").headers["etag"]
    assert etag == f'"{_WEIGHTS.sha256()}"'
    assert front.ask(WEIGHTS, headers={"If-None-Match": etag}).status == 304
    resumed = {"Range": f"bytes={WEIGHTS_SIZE - 9}-", "If-Range": etag}
    assert front.ask(WEIGHTS, headers=resumed).status == 206
    other = {**resumed, "If-Range": '"other"'}
    assert front.ask(WEIGHTS, headers=other).status == 200


def test_head_says_what_get_says_and_what_the_mirror_says(
    front: Front, mirror: MirrorProcess, secure: bool
) -> None:
    head = front.ask(WEIGHTS, method="HEAD", secure=secure)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(WEIGHTS_SIZE)
    assert head.headers["x-linked-size"] == str(WEIGHTS_SIZE)
    got = front.ask(WEIGHTS, secure=secure)
    assert _shown(head.headers) == _shown(got.headers)
    with closing(front.connect()) as connection:
        connection.close()
        connection.port = int(mirror.url.rpartition(":")[2])
        connection.request("HEAD", WEIGHTS)
        own = {name.lower(): value for name, value in connection.getresponse().getheaders()}
    assert _shown(head.headers) == _shown(own)


def test_addresses_that_the_mirror_names_are_those_that_the_client_used(
    front: Front, secure: bool
) -> None:
    """git-lfs fetches from where the batch says, so a clone over TLS must not leave it."""
    base = f"{'https' if secure else 'http'}://127.0.0.1:"
    oid = _WEIGHTS.sha256()
    body = json.dumps({"operation": "download", "objects": [{"oid": oid, "size": WEIGHTS_SIZE}]})
    for said in ({}, {"X-Forwarded-Proto": "http" if secure else "https"}):
        with closing(front.connect(secure=secure)) as connection:
            connection.request("POST", "/acme/tiny.git/info/lfs/objects/batch", body, headers=said)
            (found,) = json.load(connection.getresponse())["objects"]
        assert found["actions"]["download"]["href"].startswith(base)
    assert f"HF_ENDPOINT={base}" in front.ask("/", secure=secure).body.decode()


def test_an_empty_file(front: Front) -> None:
    for method in ("GET", "HEAD"):
        answer = front.ask("/acme/tiny/resolve/main/empty.txt", method=method)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-length"] == "0"


def test_a_refusal_keeps_its_code_and_its_sentence(front: Front, secure: bool) -> None:
    for method in ("GET", "HEAD"):
        answer = front.ask("/acme/other/resolve/main/x", method=method, secure=secure)
        assert answer.status == 404
        assert answer.headers["x-error-code"] == "RepoNotFound"
        assert "ext. 4711" in answer.headers["x-error-message"]
        assert "acme/other" in answer.headers["x-hf-warning"]
    missing = front.ask("/acme/tiny/resolve/main/nope", secure=secure)
    assert (missing.status, missing.headers["x-error-code"]) == (404, "EntryNotFound")
    assert len(missing.headers["x-repo-commit"]) == 40


def test_paths_arrive_as_they_were_sent(front: Front) -> None:
    odd = "a%23b%3Fc%2520d%2Be.txt"
    for revision in ("main", "feature%2Fx", "feature/x", "refs%2Fpr%2F1"):
        answer = front.ask(f"/acme/tiny/resolve/{revision}/{odd}")
        assert answer.body == f"{ODD_NAMES[0]} at {revision.replace('%2F', '/')}\n".encode()
    assert front.ask("//acme/tiny/resolve/main/config.json").status == 200
    for path in ("..%2f..%2fetc/passwd", "%2e%2e/%2e%2e/etc/passwd", "../../../../../etc/passwd"):
        answer = front.ask(f"/acme/tiny/resolve/main/{path}")
        assert 400 <= answer.status < 500
        assert b"root:" not in answer.body


def test_an_upload_is_refused_in_words(front: Front) -> None:
    answer = front.ask("/api/repos/create", method="POST")
    assert (answer.status, answer.headers["x-error-code"]) == (403, "ReadOnly")


def test_a_file_that_is_still_being_fetched_is_passed_on(
    front: Front, upstream: HubProcess, secure: bool
) -> None:
    name, content = cold("streamed", front)
    if secure:  # it is held by now
        name, content = "acme/tiny", _WEIGHTS
    path = f"/{name}/resolve/main/model.safetensors"
    upstream.hold(at=1 << 20)
    try:
        with closing(front.connect(secure=secure)) as connection:
            connection.request("GET", path)
            reply = connection.getresponse()
            begin = reply.read(512 << 10)
            assert begin == content.read(0, 512 << 10)
            upstream.release()
            assert begin + reply.read() == content.read(0, content.size)
    finally:
        upstream.heal()
    assert front.ask(path, secure=secure).body == content.read(0, content.size)


def test_wrong_bytes_never_come_whole_and_are_never_continued(
    front: Front, upstream: HubProcess
) -> None:
    name, content = cold("wrong", front)
    path = f"/{name}/resolve/main/model.safetensors"
    upstream.fault("U15", path="model.safetensors")
    upstream.set(bandwidth=4_000_000)
    try:
        cut = front.ask(path)
    finally:
        upstream.heal()
        upstream.set(bandwidth=None)
    assert not cut.whole or cut.body == content.read(0, BIG)
    if cut.whole:
        return  # the second attempt was quicker than we were
    assert int(cut.headers["content-length"]) == BIG
    resumed = front.ask(path, headers={"Range": f"bytes={len(cut.body)}-"})
    assert resumed.status == 200
    assert resumed.body == content.read(0, BIG)


def test_many_clients_at_once(front: Front, upstream: HubProcess) -> None:
    name, content = cold("crowd", front)
    path = f"/{name}/resolve/main/model.safetensors"
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: front.ask(path), range(40)))
    assert {(one.status, one.whole) for one in answers} == {(200, True)}
    assert {hashlib.sha256(one.body).hexdigest() for one in answers} == {content.sha256()}


def test_the_log_of_the_proxy_names_the_client_and_the_mirror_s_names_the_proxy(
    front: Front, mirror: MirrorProcess
) -> None:
    path = f"/acme/unknown-{front.name}/resolve/main/x"
    front.ask(path, source=OUTSIDE, headers={"X-Forwarded-For": "192.0.2.99"})
    mirror.wait_until(lambda: path in front.log and path in mirror.log)
    line = next(line for line in front.log.splitlines() if path in line)
    assert OUTSIDE in line
    own = next(line for line in mirror.log.splitlines() if path in line)
    assert " 127.0.0.1 " in own
    assert "192.0.2.99" not in own


@pytest.mark.parametrize("path", ["/-/status", "/-/lock", "/metrics", "/-/admin/"])
def test_what_is_for_admins_stays_inside(front: Front, path: str) -> None:
    assert front.ask(path).status in (200, 404)
    assert front.ask(path, source=OUTSIDE).status == 403
    spellings = (f"/{path}", path.replace("s", "%73"), f"{path}?x", f"/x/..{path}")
    for spelling in spellings:
        answer = front.ask(spelling, source=OUTSIDE)
        assert 400 <= answer.status < 500, spelling


def test_lists_of_digests_are_for_devices(front: Front) -> None:
    answer = front.ask("/-/sums/acme/tiny@main", source=OUTSIDE)
    assert answer.status == 200
    fingerprint = hashlib.sha256(answer.body).hexdigest()
    assert answer.headers["x-fingerprint"] == f"sha256:{fingerprint}"


@pytest.mark.parametrize("kind", FRONTS, ids=lambda kind: kind.name)
def test_behind_a_proxy_every_client_counts_as_one_address(
    kind: type[Front], upstream: HubProcess, tmp_path: Path
) -> None:
    mirror = MirrorProcess(tmp_path / "mirror", upstream.url, ["acme/tiny@main"])
    per_address(mirror, 2)
    mirror.lock_all()
    mirror.start()
    try:
        with kind(tmp_path / "front", mirror.url) as front, ExitStack() as stack:
            # HAProxy asks first whether the mirror is ready.
            until("the mirror is reached", lambda: front.ask("/-/healthy").status == 200)
            upstream.hold(path="model.safetensors")
            stack.callback(upstream.heal)
            for number in range(2, 4):
                waiting = stack.enter_context(closing(front.connect(source=f"127.0.0.{number}")))
                waiting.request("GET", WEIGHTS)
            mirror.wait_until(lambda: "model.safetensors" in str(upstream.requests(host="cdn")))
            statuses = {front.ask("/acme/tiny/resolve/main/config.json").status for _ in range(3)}
            assert 503 in statuses
            upstream.release()
    finally:
        mirror.stop()


@pytest.mark.parametrize("client", _CLIENTS)
def test_the_real_client_gets_what_the_source_has(
    front: Front, client: str, tmp_path: Path
) -> None:
    clients.ensure(_CLIENTS)
    device = Device(client, front.url, tmp_path)
    calls = [
        ("snapshot_download", {"repo_id": "acme/tiny", "revision": revision})
        for revision in ("main", "feature/x", "refs/pr/1")
    ]
    refused = ("hf_hub_download", {"repo_id": "acme/other", "filename": "config.json"})
    *outcomes, no = device.start(*calls, refused).outcomes()
    world = acme_world(many=0)
    for (_, arguments), outcome in zip(calls, outcomes, strict=True):
        commit = world.repo("acme/tiny").at(arguments["revision"])
        assert digests(outcome.folder) == truth(commit)
    assert no.error == "RepositoryNotFoundError"
    assert "not on this mirror's allowlist" in no.text


def _shown(headers: object) -> dict[str, str]:
    assert isinstance(headers, dict)
    return {name: value for name, value in headers.items() if name not in _OWN}
