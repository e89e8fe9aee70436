"""deploy/kubernetes: manifests that Kubernetes takes, and that fit the image and the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import config as configs
from proxy.pins import allowlist, lock
from proxy.pins.lock import Lock
from tests.deploy import validator
from tests.deploy.fronts import DEPLOY

FOLDER = DEPLOY / "kubernetes"
MANIFESTS = ("statefulset.yaml", "service.yaml")


def _read(name: str) -> Any:
    (document,) = yaml.safe_load_all((FOLDER / name).read_text())
    return document


@pytest.fixture
def pod() -> Any:
    return _read("statefulset.yaml")["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


@pytest.mark.timeout(600)  # the first one waits for pip
@pytest.mark.parametrize("version", ["1.28", "1.34"])
@pytest.mark.parametrize("name", MANIFESTS)
def test_the_schema_of_kubernetes_accepts_it(name: str, version: str) -> None:
    assert validator.validate(FOLDER / name, version) == ""


@pytest.mark.timeout(600)
def test_the_schema_of_kubernetes_refuses_a_misspelt_key(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    text = (FOLDER / "statefulset.yaml").read_text()
    wrong.write_text(text.replace("readinessProbe:", "readynessProbe:"))
    assert "readynessProbe" in validator.validate(wrong, "1.34")


def test_kustomize_finds_every_file() -> None:
    kustomization = _read("kustomization.yaml")
    (generator,) = kustomization["configMapGenerator"]
    named = {*kustomization["resources"], *generator["files"]}
    there = {
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*")
        if path.is_file() and "hubpin-data" not in path.parts
    }
    assert named == there - {"kustomization.yaml"}
    assert kustomization["generatorOptions"] == {"disableNameSuffixHash": True}


def test_labels_find_each_other() -> None:
    stateful, service = _read("statefulset.yaml"), _read("service.yaml")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    assert stateful["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]


def test_every_mount_has_its_volume(pod: Any, container: Any) -> None:
    claims = _read("statefulset.yaml")["spec"]["volumeClaimTemplates"]
    volumes = {one["name"] for one in pod["volumes"]}
    volumes |= {one["metadata"]["name"] for one in claims}
    assert {one["name"] for one in container["volumeMounts"]} == volumes
    (generator,) = _read("kustomization.yaml")["configMapGenerator"]
    maps = [one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one]
    assert maps == [generator["name"]]


def test_it_runs_as_the_user_of_the_image_and_shut(pod: Any, container: Any) -> None:
    user = re.search(r"(?m)^USER (\d+):(\d+)$", (DEPLOY / "Dockerfile").read_text())
    assert user is not None
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert security["fsGroup"] == int(user[2])
    assert security["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_probes_ask_what_the_server_answers(container: Any) -> None:
    served = (DEPLOY.parent / "proxy/server/app.py").read_text()
    ports = {one["name"] for one in container["ports"]}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[kind]["httpGet"]
        assert f'"{probe["path"]}"' in served
        assert probe["port"] in ports
    assert container["livenessProbe"]["httpGet"]["path"] == "/-/healthy"


def test_the_files_of_the_site_are_valid(container: Any) -> None:
    assert container["args"] == ["-c", "/etc/hubpin/hubpin.yaml", "serve"]
    config = configs.load(FOLDER / "site" / "hubpin.yaml")
    assert config.auto_lock is False  # the folder is read-only
    assert config.listen.port == container["ports"][0]["containerPort"]
    assert allowlist.load(config.allowlist).allowed == ()
    assert config.lock.read_bytes() == lock.dumps(Lock())
