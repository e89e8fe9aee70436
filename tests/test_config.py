"""hubpin.yaml: every key is read, and every mistake is named."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from proxy import config, yamlfile
from proxy.config import Config, Listen, Timeouts, UpstreamConfig
from proxy.errors import ConfigError

TOKEN = "hf_canary0123456789"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hubpin.yaml of the person who runs this is in the way."""
    monkeypatch.chdir(tmp_path)


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "hubpin.yaml"
    file.write_text(text)
    return config.load(file)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value)


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
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
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
        accel: /-/accel/
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
        accel="/-/accel/",
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
        ("offline: true\ndrift_check: 1ms", 2, "drift_check: must be at least 1 s, or 0 for never"),
        ("offline: true\nscrub: 999ms", 2, "scrub: must be at least 1 s, or 0 for never"),
        ("offline: true\ncontact: null", 2, "contact: is nothing; leave the key out"),
        ("offline: true\ncontact: ~", 2, "contact: is nothing; leave the key out"),
        ("offline: true\nallowlist: null", 2, "allowlist: is nothing; leave the key out"),
        ("offline: true\ndata: NULL", 2, "data: is nothing; leave the key out"),
        ("offline: true\nallowlist: .", 2, "is a folder; name a file"),
        ("offline: true\nallowlist: /", 2, "is a folder; name a file"),
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
        *(
            (f"\nlisten: '{text}'", 2, "listen: must be host:port")
            for text in (
                "::1",
                "fe80::1",
                "::1:8090",
                "[::1:80",
                "::1]:80",
                "[a]:80",
                "http://a:80",
            )
        ),
        ("\naudit_size: 0", 2, "audit_size: must be at least 65,536 bytes"),
        ("\naudit_size: 63KiB", 2, "audit_size: must be at least 65,536 bytes"),
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
        *(
            (f"\naccel: {text}", 2, "accel: must be off, or a location like /-/accel/")
            for text in (
                "true",
                "on",
                "/",
                "x/",
                "/x",
                "//",
                "/a//",
                "/../",
                "/a b/",
                "/é/",
                "/$x/",
            )
        ),
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


def test_a_configuration_of_a_mebibyte_is_refused(tmp_path: Path) -> None:
    assert "are not read" in refused(tmp_path, "#" * (yamlfile.MAX_BYTES + 1))


# --- workers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("1s", 1.0), ("1000ms", 1.0)])
def test_what_is_done_again_and_again_has_a_pause_or_is_not_done(
    tmp_path: Path, text: str, seconds: float
) -> None:
    held = load(tmp_path, f"drift_check: {text}\nscrub: {text}\n")
    assert (held.drift_check, held.scrub) == (seconds, seconds)


@pytest.mark.parametrize("number", [1, 2, 64])
def test_workers_are_a_number(tmp_path: Path, number: int) -> None:
    assert load(tmp_path, f"workers: {number}\n").workers == number


@pytest.mark.parametrize("text", ["0", "-1", "65", "two", "1.5", "[2]"])
def test_workers_are_from_1_to_64(tmp_path: Path, text: str) -> None:
    assert "workers" in refused(tmp_path, f"offline: true\nworkers: {text}\n")
    assert "hubpin.yaml:2" in refused(tmp_path, f"offline: true\nworkers: {text}\n")


def test_more_than_one_worker_needs_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux" in refused(tmp_path, "workers: 2\n")
    assert load(tmp_path, "workers: 1\n").workers == 1
