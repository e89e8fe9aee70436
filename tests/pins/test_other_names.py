"""What else a listed repository is called: another case, an alias, the name that the Hub gave."""

from __future__ import annotations

import pytest

from proxy.errors import ConfigError
from proxy.hub.names import RepoId
from proxy.pins import allowlist
from tests.pins.examples import catalog_of, pin


def listed(text: str, name: str, info_id: str = "org/m") -> str:
    return catalog_of(text, pin("org/m@main", info={"id": info_id})).listed(RepoId(name))


def test_another_case_means_the_listed_one() -> None:
    assert listed("allow: [Org/M@main]", "oRG/m") == "Org/M"
    assert listed("allow: [datasets/Org/M@main]", "datasets/org/m") == "datasets/Org/M"


def test_a_type_is_part_of_the_name() -> None:
    assert listed("allow: [datasets/org/m@main]", "Org/m") == "Org/m"


def test_two_that_differ_in_case_mean_themselves_only() -> None:
    text = "allow: [org/m@main, Org/M@main]"
    assert listed(text, "org/m") == "org/m"
    assert listed(text, "Org/M") == "Org/M"
    assert listed(text, "ORG/M") == "ORG/M"


def test_an_alias_and_the_name_that_the_hub_gave() -> None:
    text = "allow: [{repo: org/m, revision: main, aliases: [m, old/m]}]"
    for name in ("m", "M", "old/m", "new/m"):
        assert listed(text, name, "new/m") == "org/m"
    assert listed(text, "other/m", "new/m") == "other/m"


def test_what_is_listed_itself_is_nobodys_alias() -> None:
    assert listed("allow: [org/m@main, new/m@main]", "new/m", "new/m") == "new/m"


@pytest.mark.parametrize("name", ["../etc", "a/b/c", "new/m.git", 'x"y'])
def test_a_name_that_none_can_have_is_left_out(name: str) -> None:
    assert listed("allow: [org/m@main]", "org/m", name) == "org/m"


@pytest.mark.parametrize(
    "text",
    [
        "allow: [{repo: org/m, revision: main, aliases: [m]}, m@main]",
        "allow: [{repo: org/m, revision: main, aliases: [m]},"
        " {repo: org/n, revision: main, aliases: [M]}]",
        "allow: [{repo: org/m, revision: main, aliases: [datasets/m]}]",
        "allow: [{repo: org/m, revision: main, aliases: ['a b']}]",
    ],
)
def test_an_alias_may_mean_one_repository_only(text: str) -> None:
    with pytest.raises(ConfigError):
        allowlist.loads(text)
