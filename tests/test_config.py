"""hubpin.yaml and its environment: every key, every mistake, and tokens that stay secret."""

from __future__ import annotations

import logging
import pickle
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from proxy import config, yamlfile
from proxy.config import Config, Listen, Secret, Timeouts, UpstreamConfig
from proxy.errors import ConfigError

TOKEN = "hf_canary0123456789"


@pytest.fixture(autouse=True)
def nobody_elses_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No HUBPIN_ variable of the person who runs this, and no hubpin.yaml beside it."""
    for key in ("CONFIG", "TOKEN", *(one.name.upper() for one in fields(Config))):
        monkeypatch.delenv(f"HUBPIN_{key}", raising=False)
    monkeypatch.chdir(tmp_path)


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "hubpin.yaml"
    file.write_text(text)
    return config.load(file)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def token_file(tmp_path: Path, *, mode: int = 0o600, text: str = TOKEN + "\n") -> Path:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    return file


# --- the file ------------------------------------------------------------------------------------


def test_every_key_may_be_left_out(tmp_path: Path) -> None:
    held = config.load()
    assert held.file is None
    assert str(held.listen) == "0.0.0.0:8090"
    assert held.data == tmp_path / "hubpin-data"
    assert held.allowlist == tmp_path / "allowlist.yaml"
    assert held.lock == tmp_path / "allowlist.lock"
    assert [str(one.url) for one in held.upstreams] == ["https://huggingface.co"]
    assert held.auto_lock
    assert not held.offline
    assert held.keep_free == 10 << 30
    assert held.timeouts == Timeouts(5, 30)
    assert held.contact == ""


def test_every_key_is_read(tmp_path: Path) -> None:
    token_file(tmp_path)
    held = load(
        tmp_path,
        """\
        listen: 127.0.0.1:80
        data: /srv/hubpin
        allowlist: sub/list.yaml
        contact: "ml-platform, ext. 4711"
        upstreams:
          - url: https://hub.example
            token_file: token
            redirect_hosts: ["*.cdn.example", "10.0.0.1:8080", "[::1]:9"]
            connections: 9
            authoritative: false
          - https://hf-mirror.com
          - file:///mnt/usb
        offline: true
        auto_lock: "off"
        keep_free: 512MiB
        timeouts: {connect: 500ms, read: 1m}
        """,
    )
    first, second, third = held.upstreams
    assert held == Config(
        file=tmp_path / "hubpin.yaml",
        listen=Listen("127.0.0.1", 80),
        data=Path("/srv/hubpin"),
        allowlist=tmp_path / "sub/list.yaml",
        contact="ml-platform, ext. 4711",
        upstreams=(first, second, third),
        offline=True,
        auto_lock=False,
        keep_free=512 << 20,
        timeouts=Timeouts(0.5, 60),
    )
    assert held.lock == tmp_path / "sub/list.lock"
    assert first == UpstreamConfig(
        url=URL("https://hub.example"),
        token=first.token,
        redirect_hosts=("*.cdn.example", "10.0.0.1:8080", "[::1]:9"),
        connections=9,
        authoritative=False,
    )
    assert first.token.reveal() == TOKEN
    assert second.authoritative
    assert not second.token
    assert str(third.url) == "file:///mnt/usb"


def test_paths_are_relative_to_the_file_and_not_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hubpin.yaml").write_text("data: d\n")
    monkeypatch.chdir("/")
    assert config.load(tmp_path / "etc/hubpin.yaml").data == tmp_path / "etc/d"


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert load(tmp_path, "data: ~/hubpin").data == Path("/home/ada/hubpin")


def test_the_public_hubs_may_redirect_to_their_own_hosts(tmp_path: Path) -> None:
    text = "upstreams: [https://huggingface.co, {url: 'https://hf-mirror.com'}, https://x.example]"
    hub, mirror, other = load(tmp_path, text).upstreams
    assert "*.hf.co" in hub.redirect_hosts
    assert "huggingface.co" in mirror.redirect_hosts
    assert other.redirect_hosts == ()
    (strict,) = load(tmp_path, "upstreams: [{url: 'https://huggingface.co', redirect_hosts: []}]"
                     ).upstreams  # fmt: skip
    assert strict.redirect_hosts == ()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.yaml")


def test_the_file_is_found_by_argument_then_variable_then_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("argument", "variable", "hubpin"):
        (tmp_path / f"{name}.yaml").write_text(f"contact: {name}\n")
    assert config.load().contact == "hubpin"
    monkeypatch.setenv("HUBPIN_CONFIG", str(tmp_path / "variable.yaml"))
    assert config.load().contact == "variable"
    assert config.load(tmp_path / "argument.yaml").contact == "argument"
    monkeypatch.setenv("HUBPIN_CONFIG", "")
    assert config.load().contact == "hubpin"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("listn: x", 1, "has no key 'listn'; it knows: "),
        ("data: a\ndata: b", 2, "duplicate key 'data'"),
        ("[]", 1, "must be a mapping, not a list"),
        ("\nlisten: 8090", 2, "listen: must be host:port"),
        ("\nlisten: ':8090'", 2, "listen: must be host:port"),
        ("\nlisten: a:b", 2, "listen: must be host:port"),
        ("\nlisten: a:65536", 2, "listen: must be host:port"),
        ("\nlisten: a:00000099999", 2, "listen: must be host:port"),
        ("\nlisten: a:²", 2, "listen: must be host:port"),
        ("\nlisten: a:٣", 2, "listen: must be host:port"),
        ("\nlisten: a:" + "0" * 5000, 2, "listen: must be host:port"),
        ("\ndata: ''", 2, "data: must be a path"),
        ('\ndata: "a\\0b"', 2, "data: must be a path"),
        ("\ndata: ~nobody-of-that-name/x", 2, "data: '~nobody-of-that-name/x'"),
        ("\nallowlist: allowlist.lock", 2, "allowlist: the lock beside it"),
        ("\ncontact: 'a\n\n  b'", 2, "contact: must be one line"),
        ('\ncontact: "\\e[31m"', 2, "contact: must be one line"),
        ("\noffline: no", 2, "offline: must be true or false, not 'no'"),
        ("\nauto_lock: on", 2, "auto_lock: must be one of new, off"),
        ("\nkeep_free: 10 gallons", 2, "keep_free: '10 gallons' is not a size"),
        ("\nkeep_free: -1", 2, "keep_free: '-1' is not a size"),
        ("\ntimeouts: 5s", 2, "timeouts must be a mapping, not a text"),
        ("\ntimeouts: {read: 5 min}", 2, "read: '5 min' is not a duration"),
        ("\ntimeouts: {read: 0s}", 2, "timeouts: must be longer than nothing"),
        ("\ntimeouts: {total: 5s}", 2, "timeouts has no key 'total'; it knows: connect, read"),
        ("\nupstreams: https://a.example", 2, "upstreams: must be a list"),
        ("\nupstreams: [huggingface.co]", 2, "starts with https, http"),
        ("\nupstreams: ['ftp://a.example']", 2, "starts with https, http"),
        ("\nupstreams: ['https://']", 2, "https://"),
        ("\nupstreams: ['https://a.example:99999']", 2, "is not a URL"),
        ("\nupstreams: ['https://me:pw@a.example']", 2, "no user or password"),
        ("\nupstreams: ['file://relative/path']", 2, "an absolute path"),
        ("\nupstreams: ['file:relative']", 2, "an absolute path"),
        ("upstreams:\n  - connections: 4", 2, "the upstream has no url"),
        ("upstreams:\n  - url: https://a.example\n    connections: 0", 3, "at least 1"),
        ("upstreams:\n  - url: https://a.example\n    conections: 4", 3, "no key 'conections'"),
        ("upstreams:\n  - url: https://a.example\n    redirect_hosts: ['*']", 3, "host, *.host"),
        ("upstreams:\n  - url: https://a.example\n    redirect_hosts: ['a/b']", 3, "host, *.host"),
        ("upstreams:\n  - url: https://a.example\n    token: x", 3, "has no key 'token'"),
        ("a: {b: ]", 1, "not YAML"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    message = refused(tmp_path, text)
    assert message.startswith(f"{tmp_path}/hubpin.yaml:{line}: ")
    assert said in message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([one.name for one in fields(Config)]),
        st.text(st.characters(codec="utf-8"), max_size=12)
        | st.sampled_from(["~", "https://[", "http://a", "::1:80", "[::1]:80", "1e9GiB", "../x"]),
        max_size=3,
    )
)
def test_any_values_are_a_configuration_or_our_own_error(
    tmp_path: Path, values: dict[str, str]
) -> None:
    def quoted(text: str) -> str:
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in text) + '"'

    lines = [
        f"{key}: [{quoted(value)}]" if key == "upstreams" else f"{key}: {quoted(value)}"
        for key, value in values.items()
    ]
    try:
        assert isinstance(load(tmp_path, "\n".join(lines)), Config)
    except ConfigError as e:
        str(e).encode("utf-8", "strict")


# --- listening -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "listen", "local_url"),
    [
        ("0.0.0.0:8090", Listen("0.0.0.0", 8090), "http://127.0.0.1:8090"),
        ("'[::]:80'", Listen("::", 80), "http://[::1]:80"),
        ("'[fe80::1]:80'", Listen("fe80::1", 80), "http://[fe80::1]:80"),
        ("mirror.lan:0", Listen("mirror.lan", 0), "http://mirror.lan:0"),
    ],
)
def test_an_address_is_read_and_written(
    tmp_path: Path, text: str, listen: Listen, local_url: str
) -> None:
    held = load(tmp_path, f"listen: {text}").listen
    assert held == listen
    assert held.local_url == local_url
    assert str(held) == text.strip("'")


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


def test_a_configuration_of_a_mebibyte_is_refused(tmp_path: Path) -> None:
    assert "are not read" in refused(tmp_path, "#" * (yamlfile.MAX_BYTES + 1))
