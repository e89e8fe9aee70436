"""What a device pastes, for each shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from proxy.cli import env
from proxy.cli.env import Shell
from proxy.errors import InvalidName

URL = "http://mirror.local:8090"


def test_a_shell_understands_the_lines(tmp_path: Path) -> None:
    script = "\n".join([*env.lines(Shell.SH, URL), "env"])
    for before, after in (({}, "mirror.local"), ({"NO_PROXY": "a"}, "a,mirror.local")):
        said = subprocess.run(
            ["/bin/sh", "-c", script], env=before, capture_output=True, text=True, check=True
        )
        assert f"HF_ENDPOINT={URL}\n" in said.stdout
        assert f"NO_PROXY={after}\n" in said.stdout
        assert f"no_proxy={after}\n" in said.stdout
        assert "HF_HUB_DISABLE_IMPLICIT_TOKEN=1\n" in said.stdout


@pytest.mark.parametrize("shell", Shell)
def test_every_shell_gets_every_setting(shell: Shell) -> None:
    text = "\n".join(env.lines(shell, URL))
    for name, value in env.settings(URL).items():
        assert name in text
        assert value in text


@pytest.mark.parametrize(
    "url",
    [
        "mirror:8090",
        "http://mirror:8090/path",
        "http://a b",
        'http://a";rm -rf ~;"',
        "http://$(id)",
        "http://%PATH%",
        "http://user@host",
        "ftp://host",
        "http://host:99999",
        "http://host:65536",
        "http://host:0",
    ],
)
def test_what_a_shell_might_run_is_no_url(url: str) -> None:
    with pytest.raises(InvalidName):
        env.lines(Shell.SH, url)


def test_an_ipv6_address_stands_in_no_proxy_without_brackets() -> None:
    assert env.settings("http://[fd00::1]:8090")["NO_PROXY"] == "fd00::1"
