"""The scripts for devices, run where there is no Python: odd names, broken downloads, bad disks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e import tools
from tests.e2e.device import digests, truth
from tests.e2e.mirrors import MirrorProcess
from tests.e2e.shell_device import DEPLOY, KINDS, PULL, ShellDevice
from tests.e2e.wiretap import Wiretap
from tests.fakes.acme import acme_world
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import lfs, regular

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120, func_only=True)]
TINY = "acme/tiny@main"
ODD = (
    "-rf",
    "--help",
    "a b/-x",
    "100%.txt",
    "q?.txt",
    "h#1.txt",
    "$(id).txt",
    "'\"`*[x].txt",
    "ü.txt",
)
MODEL = Content("interrupted", 3_000_000)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorProcess]:
    tools.ensure_programs(("curl", "wget", "dash", "busybox", "shellcheck"))
    with HubProcess() as hub:
        hub.commit("acme/odd", {name: regular(f"{name}\n") for name in ODD})
        hub.commit("acme/big", {"model.bin": lfs(MODEL)})
        hub.tag("acme/big", "v1")
        hub.commit("acme/big", {"config.json": regular("{}\n")})
        mirror = MirrorProcess(
            tmp_path_factory.mktemp("site"), hub.url,
            (TINY, "acme/odd@main", "acme/big@v1", "acme/big@main",
             "{repo: solo, revision: main, notice: 'Only for research.'}"),
        )  # fmt: skip
        mirror.lock_all()
        mirror.start()
        try:
            yield mirror
        finally:
            mirror.stop()


@pytest.fixture
def device(site: MirrorProcess, tmp_path: Path, kind: str) -> ShellDevice:
    return ShellDevice.make(tmp_path / "device", site.url, kind)


@every_kind
def test_both_layouts_hold_what_the_source_has(device: ShellDevice) -> None:
    commit = acme_world().repo("acme/tiny").at("main")
    cached, plain = device.pull(TINY), device.pull("--to", "tiny", TINY)
    assert (cached.status, plain.status) == (0, 0), cached.stderr + plain.stderr
    assert cached.stdout == plain.stdout
    assert cached.stdout.startswith("sha256:")
    snapshot = device.snapshot("acme/tiny", commit.sha)
    assert digests(snapshot) == truth(commit)
    assert digests((device.home / "tiny/current").resolve()) == truth(commit)
    assert (snapshot.parents[1] / "refs/main").read_text() == commit.sha
    link = snapshot / "onnx/model.onnx"
    assert link.readlink() == Path(f"../../../blobs/{commit.files['onnx/model.onnx'].etag}")


@every_kind
def test_odd_names_are_names(device: ShellDevice) -> None:
    done = device.pull("--to", "odd one", "acme/odd@main")
    assert done.status == 0, done.stderr
    folder = (device.home / "odd one/current").resolve()
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == set(ODD)
    assert all((folder / name).read_text() == f"{name}\n" for name in ODD)


@every_kind
@pytest.mark.parametrize("begun", ["right", "wrong"])
def test_a_broken_download_goes_on_where_it_stopped(
    site: MirrorProcess, tmp_path: Path, kind: str, begun: str
) -> None:
    with Wiretap(site.url) as wire:
        device = ShellDevice.make(tmp_path / "device", wire.url, kind)
        parts = device.home / "big/.hubpin/parts"
        parts.mkdir(parents=True)
        start = MODEL.read(0, 1_000_000) if begun == "right" else bytes(1_000_000)
        (parts / lfs(MODEL).digest.hex).write_bytes(start)
        done = device.pull("--to", "big", "acme/big@v1")
    assert done.status == 0, done.stderr
    assert (device.home / "big/current/model.bin").read_bytes() == MODEL.read(0, MODEL.size)
    asked = [one.headers for one in wire.asked if one.target.endswith("/model.bin")]
    assert "range: bytes=1000000-" in asked[0]
    assert len(asked) == (1 if begun == "right" else 2)


@pytest.mark.parametrize("kind", ["curl"])
def test_a_connection_that_breaks_is_made_again(device: ShellDevice) -> None:
    curl = device.home / "bin/curl"
    real = curl.resolve()
    curl.unlink()
    wc, head, cat = (shutil.which(name) for name in ("wc", "head", "cat"))
    # The first time that much came, all but a megabyte of it is lost, as on a broken connection.
    curl.write_text(
        f'#!{shutil.which("dash")}\n{real} "$@"\nstatus=$?\nout=\n'
        'while [ $# -gt 0 ]; do [ "$1" != -o ] || out=$2; shift; done\n'
        f'if [ -s "$out" ] && [ "$({wc} -c <"$out")" -gt 1000000 ] && [ ! -e {device.home}/cut ]\n'
        f'then : >{device.home}/cut; {head} -c 1000000 "$out" >{device.home}/half\n'
        f'{cat} {device.home}/half >"$out"; exit 18; fi\nexit $status\n'
    )
    curl.chmod(0o755)
    done = device.pull("--to", "big", "acme/big@v1")
    assert done.status == 0, done.stderr
    assert "model.bin: going on after" in done.stderr
    assert (device.home / "big/current/model.bin").read_bytes() == MODEL.read(0, MODEL.size)


@every_kind
def test_a_byte_that_went_bad_is_found_and_fetched_again(device: ShellDevice) -> None:
    device.pull("--to", "big", "acme/big@v1")
    file = device.home / "big/current/model.bin"
    with file.open("r+b") as model:
        model.seek(1_234_567)
        model.write(b"\0" if MODEL.read(1_234_567, 1_234_568) != b"\0" else b"\1")
    checked = device.pull("--to", "big", "--check")
    assert (checked.status, checked.stdout) == (1, "")
    assert "model.bin is missing or altered" in checked.stderr
    assert device.pull("--to", "big", "acme/big@v1").status == 0
    assert file.read_bytes() == MODEL.read(0, MODEL.size)
    assert device.pull("--to", "big", "--check").status == 0


@pytest.mark.parametrize("kind", ["curl"])
def test_versions_are_switched_and_switched_back(device: ShellDevice) -> None:
    first = device.pull("--to", "big", "acme/big@v1")
    second = device.pull("--to", "big", "acme/big@main")
    assert "copied from" in second.stderr  # both have the model
    current = device.home / "big/current"
    assert (current / "config.json").exists()
    assert device.pull("--to", "big", "--back").stdout == first.stdout
    assert not (current / "config.json").exists()
    assert device.pull("--to", "big", "--check", "acme/big@main").status == 1
    assert device.pull("--to", "big", "--back").stdout == second.stdout
    (current / "config.json").write_text("altered")
    assert device.pull("--to", "big", "--back").status == 0
    refused = device.pull("--to", "big", "--back")
    assert refused.status == 1
    assert not (current / "config.json").exists()


@every_kind
def test_another_fingerprint_is_refused(device: ShellDevice) -> None:
    done = device.pull("--fingerprint", "sha256:" + "0" * 64, TINY)
    assert done.status == 1
    assert "wrong fingerprint" in done.stderr
    right = device.pull(TINY).stdout.strip()
    assert device.pull("--fingerprint", right, TINY).status == 0


@every_kind
def test_a_notice_is_accepted_once(device: ShellDevice) -> None:
    first = device.pull("solo@main")
    assert first.status == 2
    assert "Only for research." in first.stderr
    assert device.pull("--accept-notice", "solo@main").status == 0
    again = device.pull("solo@main")
    assert again.status == 0
    assert "Only for research." in again.stderr


@every_kind
def test_what_is_not_served_is_refused_and_leaves_nothing(device: ShellDevice) -> None:
    done = device.pull("acme/other@main")
    assert done.status == 1
    assert "refuses" in done.stderr
    assert not list((device.home / ".cache").rglob("models--*"))


@pytest.mark.parametrize("kind", ["curl"])
@pytest.mark.parametrize(
    "arguments", [(), ("acme/tiny",), ("../x@main",), ("--back",), ("--fingerprint", "1", TINY)]
)
def test_wrong_arguments_are_told(device: ShellDevice, arguments: tuple[str, ...]) -> None:
    assert device.pull(*arguments).status == 2


@pytest.mark.parametrize("path", ["../../x", "/etc/x", "a/../../x", "a//x", "a\\x"])
def test_a_list_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    """A mirror that lies; the list adds up to its fingerprint."""
    tools.ensure_programs(("dash", "busybox"))
    device = ShellDevice.make(tmp_path / "device", "http://mirror", "curl")
    done = subprocess.run(
        ["sha256sum"], input=f"{'0' * 64}  {path}\n", capture_output=True, text=True, check=True
    )
    (tmp_path / "list").write_text(
        f"# hubpin-files 1\n# commit {'1' * 40}\n# fingerprint sha256:{done.stdout[:64]}\n"
        f"{'0' * 64} {'0' * 40} 5 {path}\n"
    )
    curl = device.home / "bin/curl"
    curl.unlink()
    curl.write_text(
        f'#!{shutil.which("dash")}\nwhile [ "$1" != -o ]; do shift; done\n'
        f'cat "{tmp_path}/list" >"$2"\n'
    )
    curl.chmod(0o755)
    got = device.pull("--to", "x", "acme/x@main")
    assert got.status == 1
    assert "leads elsewhere" in got.stderr


@pytest.mark.parametrize("kind", ["curl"])
def test_an_app_is_started_on_what_was_checked(device: ShellDevice, tmp_path: Path) -> None:
    """With `python -m http.server` as the app, in the place of what a device has."""
    port = str(free_port())
    app = (
        f'exec {shutil.which("python3")} -m http.server --bind 127.0.0.1 -d "$FOLDER/current" $PORT'
    )
    variables = {
        "PATH": os.environ["PATH"], "HOME": str(device.home), "MIRROR": device.mirror_url,
        "PAIR": "acme/big@main", "FOLDER": str(tmp_path / "app"), "PORT": port, "APP": app,
    }  # fmt: skip

    def start(**changes: str) -> subprocess.CompletedProcess[str]:
        log = tmp_path / "said"
        with log.open("w") as said:  # a pipe would stay open as long as the app runs
            done = subprocess.run(
                ["dash", str(DEPLOY / "start_app.sh")], env={**variables, **changes},
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=60, check=False,
            )  # fmt: skip
        return subprocess.CompletedProcess(done.args, done.returncode, log.read_text(), "")

    pid = tmp_path / "app/.hubpin/app.pid"
    try:
        first = start()
        assert first.returncode == 0, first.stdout
        assert "RUNNING: acme/big@main" in first.stdout
        again = start(MIRROR="http://127.0.0.1:9")  # the mirror is gone; what is here will do
        assert again.returncode == 0, again.stdout
        assert "ending the app of before" in again.stdout
        other = start(MIRROR="http://127.0.0.1:9", PAIR="acme/big@v1")
        assert other.returncode == 1
        assert "NOT RUNNING" in other.stdout
        broken = start(APP="echo no voice today; exit 3")
        assert broken.returncode == 1
        assert "no voice today" in broken.stdout
        assert "ended with status 3" in broken.stdout
    finally:
        if pid.exists():
            os.kill(int(pid.read_text().split()[0]), 15)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("script", [PULL, DEPLOY / "start_app.sh"], ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    tools.ensure_programs(("shellcheck",))
    subprocess.run(["shellcheck", "--shell=sh", str(script)], check=True)


def test_samples_are_yaml_and_name_options_of_the_script() -> None:
    samples = sorted(DEPLOY.rglob("*.yaml"))
    assert len(samples) == 4
    for sample in samples:
        assert yaml.safe_load(sample.read_text())
        for word in sample.read_text().replace("'", " ").replace(",", " ").split():
            if word in ("--mirror", "--to", "--fingerprint", "--accept-notice", "--back"):
                assert f"{word} " in PULL.read_text()
    cloud = DEPLOY / "cloud-init.yaml"
    assert cloud.read_text().startswith("#cloud-config\n")
    unit = yaml.safe_load(cloud.read_text())["write_files"][1]["content"]
    assert "ExecStart=/bin/sh -c " in unit
