"""Alerts and dashboard ask for metrics that there are, in PromQL that Prometheus parses."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import errors
from proxy.telemetry import metrics
from tests.deploy.engines import engine
from tests.deploy.fronts import DEPLOY

RULES = DEPLOY / "prometheus" / "rules.yaml"
# Prometheus makes it itself, one per target.
_OWN = {"up"}
_WORD = re.compile(r"\b(?:hubpin_[a-z0-9_]+|up)\b(?=\s*[{\[)]|\s|$)")


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert isinstance(group["rules"], list)
    return group["rules"]


def _panels() -> list[dict[str, Any]]:
    read = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    assert isinstance(read["panels"], list)
    return read["panels"]


def _expressions() -> Iterator[str]:
    for rule in _rules():
        yield rule["expr"]
    for panel in _panels():
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")


def _series() -> dict[str, set[str]]:
    """Every sample that /metrics may hold, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        names = getattr(metric, "_labelnames", None)
        if names is None:
            continue
        for family in metric.describe():
            suffix = "_total" if family.type == "counter" else ""
            found[family.name + suffix] = set(names)
    return found


@pytest.mark.parametrize("expression", sorted(set(_expressions())))
def test_it_asks_for_metrics_and_labels_that_there_are(expression: str) -> None:
    plain = re.sub(r'"[^"]*"', '""', expression)
    asked = set(_WORD.findall(plain))
    assert asked
    assert asked <= _series().keys() | _OWN
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", plain):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= _series().get(name, set()) | {"job", "instance"}, name
        assert "job" in labels


def test_outcomes_that_alerts_name_are_outcomes() -> None:
    for outcome in re.findall(r'outcome="(\w+)"', RULES.read_text()):
        assert issubclass(getattr(errors, outcome), errors.MirrorError)


def test_prometheus_takes_rules_examples_and_settings() -> None:
    folder = RULES.parent
    for command in (
        ("check", "rules", "rules.yaml"),
        ("test", "rules", "rules_test.yaml"),
        ("check", "config", "scrape.yaml"),
    ):
        done = _promtool(*command, folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_an_example_and_tells_what_to_do() -> None:
    examples = yaml.safe_load((RULES.parent / "rules_test.yaml").read_text())
    fired = {
        one["alertname"]
        for test in examples["tests"]
        for one in test["alert_rule_test"]
        if one["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in _rules()}
    for rule in _rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_prometheus_parses_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(_expressions())
    ]
    (tmp_path / "panels.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})
    )
    done = _promtool("check", "rules", "panels.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = _panels()
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        taken |= cells


def _promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [engine("promtool"), *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=folder,
    )  # fmt: skip
