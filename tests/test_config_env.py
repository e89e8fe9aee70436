"""What the environment adds to hubpin.yaml, and where tokens come from and stay."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from proxy import config
from proxy.config import Listen, Secret, Timeouts
from tests.test_config import TOKEN, load, refused


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hubpin.yaml of the person who runs this is in the way."""
    monkeypatch.chdir(tmp_path)


def token_file(tmp_path: Path, *, mode: int = 0o600, text: str = TOKEN + "\n") -> Path:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    return file


# --- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "want"),
    [
        ("listen", "[::1]:81", Listen("::1", 81)),
        ("data", "/srv/#1: all", Path("/srv/#1: all")),
        ("allowlist", "/etc/a.yaml", Path("/etc/a.yaml")),
        ("contact", "who: me, [ext. 4711]", "who: me, [ext. 4711]"),
        ("contact", "", ""),
        ("offline", "true", True),
        ("auto_lock", "off", False),
        ("keep_free", "1GB", 10**9),
        ("timeouts", "{connect: 1s, read: 2s}", Timeouts(1, 2)),
    ],
)
def test_a_variable_replaces_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, want: object
) -> None:
    monkeypatch.setenv(f"HUBPIN_{key.upper()}", value)
    assert getattr(config.load(), key) == want
    text = "listen: a:1\ndata: b\nallowlist: c\ncontact: d\noffline: false\nauto_lock: new\n"
    assert getattr(load(tmp_path, text), key) == want


@pytest.mark.parametrize(
    ("value", "urls"),
    [
        ("https://a.example", ["https://a.example"]),
        ("https://a.example, https://b.example", ["https://a.example", "https://b.example"]),
        ("https://a.example https://b.example", ["https://a.example", "https://b.example"]),
        ("[{url: 'https://a.example'}, https://b.example]",
         ["https://a.example", "https://b.example"]),
        ("", []),
    ],
)  # fmt: skip
def test_upstreams_may_be_written_with_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, urls: list[str]
) -> None:
    monkeypatch.setenv("HUBPIN_UPSTREAMS", value)
    assert [str(one.url) for one in config.load().upstreams] == urls


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("LISTEN", "nowhere"),
        ("KEEP_FREE", "much"),
        ("OFFLINE", "yes"),
        ("TIMEOUTS", "{read: never}"),
        ("UPSTREAMS", "ftp://a.example"),
        ("UPSTREAMS", "[{url: 'https://a.example', conections: 1}]"),
        ("UPSTREAMS", "{a: ]"),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.setenv(f"HUBPIN_{key}", value)
    assert refused(tmp_path, "contact: me\n").startswith(f"$HUBPIN_{key}:1: ")


def test_a_variable_that_is_no_key_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HUBPIN_LISTN", "a:1")
    monkeypatch.setenv("HUBPIN_FILE", "x")
    with caplog.at_level(logging.WARNING):
        assert config.load() == config.load()
    assert "HUBPIN_LISTN names no key" in caplog.text
    assert "HUBPIN_FILE names no key" in caplog.text


# --- tokens --------------------------------------------------------------------------------------


def with_token(url: str = "https://a.example") -> str:
    return f"upstreams:\n  - url: {url}\n    token_file: token\n"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_token_comes_from_a_file_that_only_its_owner_and_group_read(
    tmp_path: Path, mode: int
) -> None:
    token_file(tmp_path, mode=mode)
    (one,) = load(tmp_path, with_token()).upstreams
    assert one.token.reveal() == TOKEN


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o602, 0o660, 0o777])
def test_a_token_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    file = token_file(tmp_path, mode=mode)
    message = refused(tmp_path, with_token())
    assert "hubpin.yaml:3: token_file: " in message
    assert f"chmod 600 {file}" in message
    assert TOKEN not in message


@pytest.mark.parametrize("text", ["", "\n", "two tokens", "a\nb", "hf_é", "a\tb", "a\x1bb"])
def test_a_token_file_holds_one_token(tmp_path: Path, text: str) -> None:
    token_file(tmp_path, text=text)
    assert "does not hold one token" in refused(tmp_path, with_token())


def test_a_token_file_that_is_not_there_is_an_error_at_its_line(tmp_path: Path) -> None:
    assert "hubpin.yaml:3: token_file: " in refused(tmp_path, with_token())
    (tmp_path / "token").write_bytes(b"\xff")
    (tmp_path / "token").chmod(0o600)
    assert "cannot be read" in refused(tmp_path, with_token())
    for path in ('"a\\0b"', "~nobody-of-that-name/t"):
        text = with_token().replace("token_file: token", f"token_file: {path}")
        assert "hubpin.yaml:3: token_file: " in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://a.example", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080", True),
        ("http://[::1]:8080", True),
        ("http://a.example", False),
        ("http://192.168.1.2", False),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
    ],
)
def test_a_token_never_travels_in_clear_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, fine: bool
) -> None:
    token_file(tmp_path)
    if fine:
        (one,) = load(tmp_path, with_token(url)).upstreams
        assert one.token
    else:
        assert "in clear text" in refused(tmp_path, with_token(url))
        assert load(tmp_path, f"upstreams: ['{url}']").upstreams
    monkeypatch.setenv("HUBPIN_TOKEN", TOKEN)
    text = f"upstreams: ['{url}']"
    if fine:
        assert load(tmp_path, text).upstreams[0].token
    else:
        assert "in clear text" in refused(tmp_path, text)


def test_a_token_from_the_environment_is_for_the_first_upstream_that_can_use_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBPIN_TOKEN", f" {TOKEN}\n")
    text = "upstreams: ['file:///mnt', 'https://a.example', 'https://b.example']"
    assert [one.token.reveal() for one in load(tmp_path, text).upstreams] == ["", TOKEN, ""]
    assert load(tmp_path, "contact: me").upstreams[0].token.reveal() == TOKEN
    assert load(tmp_path, "upstreams: []").upstreams == ()


def test_a_token_from_a_file_stands_against_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file(tmp_path)
    monkeypatch.setenv("HUBPIN_TOKEN", "hf_other")
    upstreams = load(tmp_path, with_token() + "  - https://b.example\n").upstreams
    assert [one.token.reveal() for one in upstreams] == [TOKEN, ""]


def test_a_token_of_two_lines_from_the_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBPIN_TOKEN", f"{TOKEN}\nX-Header: 1")
    message = refused(tmp_path, "")
    assert message == "$HUBPIN_TOKEN: does not hold one token"


def test_a_token_is_in_no_representation(tmp_path: Path) -> None:
    token_file(tmp_path)
    held = load(tmp_path, with_token())
    for shown in (repr(held), str(held), f"{held.upstreams[0]}", repr(held.upstreams[0].token)):
        assert TOKEN not in shown
    assert repr(held.upstreams[0].token) == str(held.upstreams[0].token) == "Secret(***)"
    assert repr(Secret("")) == "Secret('')"
    assert not Secret("")


def test_a_secret_is_not_written_down() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(TOKEN), protocol=0)
