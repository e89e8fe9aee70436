"""Devices without Python: a folder of a few programs, and the scripts of deploy/device."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.device import Ended

DEPLOY = Path(__file__).parents[2] / "deploy" / "device"
PULL = DEPLOY / "hubpin-pull.sh"
# What hubpin-pull.sh may ask for, besides a shell and something that speaks HTTP.
TOOLS = (
    "cat", "cp", "ln", "mkdir", "mv", "od", "readlink", "rm", "rmdir", "sha256sum", "sleep", "sync",
    "wc",
)  # fmt: skip
# kind → the shell, and what speaks HTTP
KINDS = {"curl": ("dash", "curl"), "wget": ("dash", "wget"), "busybox": ("sh", "wget")}
_RUN_S = 60.0


@dataclass(frozen=True, slots=True)
class ShellDevice:
    """A machine with the programs in `bin` and no others."""

    home: Path
    mirror_url: str
    shell: str

    @classmethod
    def make(
        cls, home: Path, mirror_url: str, kind: str = "curl", address: str = ""
    ) -> ShellDevice:
        """`address` is where its requests come from (curl only)."""
        bin_ = home / "bin"
        bin_.mkdir(parents=True)
        shell, client = KINDS[kind]
        for name in (*TOOLS, shell, client):
            (bin_ / name).symlink_to(_program("busybox" if kind == "busybox" else name))
        if address:
            (bin_ / "curl").unlink()
            (bin_ / "curl").write_text(
                f'#!{_program("dash")}\nexec {_program("curl")} "$@" --interface {address}\n'
            )
            (bin_ / "curl").chmod(0o755)
        return cls(home, mirror_url, shell)

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """What to run, and its whole environment."""
        environment = {"PATH": str(self.home / "bin"), "HOME": str(self.home)}
        return [str(self.home / "bin" / self.shell), str(PULL), *arguments], environment

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command, environment = self.command("--mirror", self.mirror_url, *arguments)
        return subprocess.Popen(
            command, env=environment, cwd=self.home, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def pull(self, *arguments: str) -> Ended:
        return ended(self.start(*arguments))

    def snapshot(self, repo: str, commit: str) -> Path:
        """Where the cache layout has it."""
        cache = self.home / ".cache/huggingface/hub"
        return cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit


def ended(process: subprocess.Popen[str]) -> Ended:
    try:
        stdout, stderr = process.communicate(timeout=_RUN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Ended(process.returncode, stdout, stderr)


def all_ended(processes: Sequence[subprocess.Popen[str]]) -> list[Ended]:
    return [ended(process) for process in processes]


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"no {name} on this machine"
    return found
