"""hubpin export and import as an operator runs them: exit status, pipes, and how much memory."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from proxy.cli.main import build
from proxy.hub import gitoid
from proxy.hub.names import Digest, Pair
from proxy.pins import lock as locks
from proxy.pins.lock import Pin
from proxy.upstream.offline import OfflineUpstream
from tests.pins import examples
from tests.tasks.bundles import FILES, empty_site, example, site_with

_ROOT = Path(__file__).parents[2]
_SIZE = 1 << 30
_MEMORY = 200 << 20  # bytes; the interpreter and its libraries alone take about 70 MB


def run(folder: Path, *words: str, status: int = 0) -> Result:
    """A command in this process: starting one costs a second."""
    done = CliRunner().invoke(build(), ["-c", str(folder / "hubpin.yaml"), *words])
    assert done.exit_code == status, done.output
    return done


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "proxy", "-c", str(folder / "hubpin.yaml"), *words]


def configure(folder: Path, *allow: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "hubpin.yaml").write_text("data: data\nkeep_free: 1MiB\noffline: true\n")
    (folder / "allowlist.yaml").write_text("allow:\n" + "".join(f"  - {one}\n" for one in allow))
    return folder


@pytest.fixture
async def near(tmp_path: Path) -> Path:
    await site_with(tmp_path / "near", example("org/m@v23"))
    return configure(tmp_path / "near", "org/m@v23")


@pytest.fixture
def far(tmp_path: Path) -> Path:
    return configure(tmp_path / "far")


def export(near: Path) -> Path:
    run(near, "export", "-o", str(near / "site.hubpin"))
    return near / "site.hubpin"


def test_one_line_of_shell_carries_a_pair_over(near: Path, far: Path) -> None:
    sender = subprocess.Popen(command(near, "export", "-o", "-"), cwd=_ROOT, stdout=subprocess.PIPE)
    with sender:
        done = subprocess.run(
            command(far, "import", "-", "--accept-pins", "--allow"),
            cwd=_ROOT, stdin=sender.stdout, timeout=100, check=False,
        )  # fmt: skip
    assert (sender.returncode, done.returncode) == (0, 0)
    said = json.loads(run(far, "status", "--json").stdout)
    assert [(one["pair"], one["held_files"]) for one in said["pairs"]] == [("org/m@v23", 3)]


def test_pins_that_were_left_are_an_exit_status_and_a_hint(near: Path, far: Path) -> None:
    said = run(far, "import", str(export(near)), status=1)
    assert said.stdout.startswith("new       org/m@v23")
    assert "--accept-pins" in said.stderr
    assert "hubpin add org/m@v23\n" in said.stdout
    run(far, "import", str(near / "site.hubpin"), "--dry-run")


def test_a_flipped_bit_is_one_line_and_a_failure(near: Path, far: Path) -> None:
    file = export(near)
    sent = bytearray(file.read_bytes())
    sent[sent.index(b"weightsweights")] ^= 1
    file.write_bytes(sent)
    said = run(far, "import", str(file), "--accept-pins", status=1)
    assert "model.bin" in said.stderr.splitlines()[-1]


def test_events_are_lines_of_json(near: Path, far: Path, tmp_path: Path) -> None:
    file = tmp_path / "site.hubpin"
    wrote = run(near, "export", "-o", str(file), "--split", "4kB", "--json").stdout
    came = run(far, "import", str(file), "--accept-pins", "--json").stdout
    last = [json.loads(text.splitlines()[-1]) for text in (wrote, came)]
    assert last[0]["written"] == [str(part) for part in sorted(tmp_path.glob("site.hubpin.*"))]
    assert (last[1]["event"], last[1]["taken_files"], last[1]["pins"]) == ("finished", 3, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["import"],
        ["import", "nothing.hubpin"],
        ["import", "x", "--from-dir", "y", "--as", "org/m@v23"],
        ["import", "--from-dir", "y"],
        ["import", "--from-hf-cache", "y", "--accept-pins"],
        ["import", "-", "--allow"],
        ["export", "-o", "-", "--split", "1G"],
        ["export", "-o", "-", "--json"],
        ["export", "-o", "x", "--split", "many"],
        ["export", "-o", "no/such/folder/x"],
        ["export", "org/other@v1", "-o", "x"],
        ["warm", "--window", "25:00-26:00"],
        ["warm", "--limit-rate", "0"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_the_operators_mistake(words: list[str], near: Path) -> None:
    assert run(near, *words, status=2).stderr.startswith("hubpin: ")


def test_a_folder_is_adopted_and_a_wrong_file_is_a_failure(near: Path, tmp_path: Path) -> None:
    far = configure(tmp_path / "far", "org/m@v23")
    (far / "allowlist.lock").write_bytes((near / "allowlist.lock").read_bytes())
    share = tmp_path / "share"
    for path, content in FILES.items():
        (share / path).parent.mkdir(parents=True, exist_ok=True)
        (share / path).write_bytes(content)
    (share / "model.bin").write_bytes(b"WEIGHTS" * 1000)
    said = run(far, "import", "--from-dir", str(share), "--as", "org/m@v23", status=1)
    assert "model.bin was not taken" in said.stderr
    (share / "model.bin").write_bytes(FILES["model.bin"])
    run(far, "import", "--from-dir", str(share), "--as", "org/m@v23")
    assert "3/3" in run(far, "status").stdout


# --- memory --------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A site that holds one file of a gigabyte, which takes no room: it is a hole."""
    hole = tmp_path / "hole"
    with hole.open("wb") as file:
        file.truncate(_SIZE)
    yield hole
    for file_ in tmp_path.rglob("*"):
        if file_.is_file() and file_.stat().st_size >= _SIZE:
            file_.unlink()


def _pin_of(hole: Path) -> Pin:
    with hole.open("rb") as file:
        digest = Digest.of_hex(hashlib.file_digest(file, "sha256").hexdigest())
    pin = examples.pin("org/large@v1", {"model.bin": b""})
    oid = gitoid.blob_oid(gitoid.lfs_pointer(digest, _SIZE))
    entry = msgspec.structs.replace(pin.files["model.bin"], size=_SIZE, digest=digest, git_oid=oid)
    return replace(pin, files={"model.bin": entry})


async def test_a_large_file_goes_out_and_in_with_little_memory(large: Path, tmp_path: Path) -> None:
    pin = _pin_of(large)
    site = empty_site(tmp_path / "near")
    site.config.lock.write_bytes(locks.dumps(examples.lock_of(pin)))
    async with site.mirror(OfflineUpstream(), offline=True) as mirror:
        await mirror.store.adopt(pin.files["model.bin"].digest, large)
    near, far = configure(tmp_path / "near", "org/large@v1"), configure(tmp_path / "far")
    peak = _peak(near, "export", "-o", str(tmp_path / "site.hubpin"), "--split", "300MB")
    assert peak < _MEMORY
    peak = _peak(far, "import", str(tmp_path / "site.hubpin"), "--accept-pins", "--allow")
    assert peak < _MEMORY
    pins = locks.load(far / "allowlist.lock").pins
    assert pins[Pair("org/large@v1")].files == pin.files


# A child's peak counts from the fork, with the memory of who forked it: so somebody small does.
_MEASURE = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(ended.returncode)
"""


def _peak(folder: Path, *words: str) -> int:
    """Runs a command and answers how many bytes of memory it had at most."""
    process = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command(folder, *words)],
        cwd=_ROOT, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return int(process.stdout) * 1024  # Linux counts in KiB (getrusage(2))
