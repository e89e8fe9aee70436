"""deploy/Dockerfile and deploy/compose.yaml, as far as they can be checked without building."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import subprocess
import sys
import tomllib
from typing import Any

import yaml

from proxy.cli.main import COMMANDS
from proxy.config import load
from tests.deploy.fronts import DEPLOY

TOP = DEPLOY.parent
# https://docs.docker.com/reference/dockerfile/
_INSTRUCTIONS = {
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}
# https://github.com/compose-spec/compose-spec/blob/main/spec.md: the ones that are used
_SERVICE_KEYS = {
    *("image", "build", "init", "restart", "ports", "volumes", "read_only", "tmpfs", "cap_drop"),
    *("security_opt", "ulimits", "stop_grace_period", "logging"),
}


def _instructions() -> list[tuple[str, str]]:
    """Lines that end in a backslash continue; comments and empty lines are none."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if line.strip() and not line.startswith("#"))
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        found.append((name, " ".join(rest.split())))
    return found


def _of(name: str) -> list[str]:
    return [rest for found, rest in _instructions() if found == name]


def _service() -> dict[str, Any]:
    read = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(read) == {"name", "services", "volumes"}
    service = read["services"]["hubpin"]
    assert isinstance(service, dict)
    return service


def test_every_line_is_an_instruction() -> None:
    for name, rest in _instructions():
        assert name in _INSTRUCTIONS
        assert rest, name
    kinds = [name for name, _ in _instructions()]
    assert kinds[0] == "ARG"
    assert kinds[1] == "FROM"


def test_what_runs_is_valid_shell_and_valid_json() -> None:
    for run in _of("RUN"):
        done = subprocess.run(
            ["sh", "-n", "-c", run], capture_output=True, text=True, timeout=10, check=False
        )
        assert done.returncode == 0, done.stderr
    for words in (*_of("ENTRYPOINT"), *_of("CMD")):
        assert all(isinstance(word, str) for word in json.loads(words))


def test_it_has_two_stages_and_takes_only_the_environment_along() -> None:
    first, second = _of("FROM")
    assert re.fullmatch(r"python:\$\{PYTHON_VERSION\}-slim AS build", first)
    assert second == "python:${PYTHON_VERSION}-slim"
    (arg,) = _of("ARG")
    version = arg.partition("=")[2]
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    taken = [words for words in map(shlex.split, _of("COPY")) if words[0].startswith("--from")]
    assert taken == [["--from=build", "/opt/hubpin", "/opt/hubpin"]]


def test_what_the_build_copies_is_there_and_not_ignored() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    sources = {
        word
        for words in map(shlex.split, _of("COPY"))
        if not words[0].startswith("--")
        for word in words[:-1]
    }
    assert sources == allowed
    assert all((TOP / source).exists() for source in sources)
    # What the package needs to be built, as pyproject.toml names it.
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    for needed in ("pyproject.toml", project["readme"], *project["license-files"]):
        assert any(fnmatch.fnmatch(source, needed) for source in sources)


def test_it_does_not_run_as_root_and_ends_well() -> None:
    (user,) = _of("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    names = [name for name, _ in _instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]
    assert _of("STOPSIGNAL") == ["SIGTERM"]  # as server/run.py, serve, expects it


def test_its_default_command_is_one_of_ours(monkeypatch: Any) -> None:
    assert _of("ENTRYPOINT") == ['["hubpin"]']
    (command,) = json.loads(_of("CMD")[0])
    assert command in COMMANDS
    (variables,) = _of("ENV")
    for name, value in re.findall(r"(HUBPIN_\w+)=(\S+)", variables):
        monkeypatch.setenv(name, value)
    config = load()
    assert str(config.data) == "/data/hubpin"
    assert [str(config.listen.port)] == _of("EXPOSE")
    assert _of("VOLUME") == ["/data"]


def test_the_probe_of_its_health_is_python_that_compiles() -> None:
    (check,) = _of("HEALTHCHECK")
    program, option, code = json.loads(check.partition("CMD ")[2])
    assert (program, option) == ("python", "-c")
    done = subprocess.run(
        [sys.executable, "-c", code.replace("8090", "9")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1  # nobody listens there
    assert "Connection refused" in done.stderr


def test_compose_uses_keys_that_there_are_and_runs_it_shut() -> None:
    service = _service()
    assert set(service) <= _SERVICE_KEYS
    assert (TOP / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert (DEPLOY / service["build"]["context"]).samefile(TOP)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    read = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    named = {one.partition(":")[0] for one in service["volumes"] if one[0] not in "./"}
    assert named == set(read["volumes"])
    targets = {one.split(":")[1] for one in service["volumes"]}
    assert targets == {"/etc/hubpin", *_of("VOLUME")}
