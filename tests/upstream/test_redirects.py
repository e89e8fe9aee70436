"""Where redirects may lead, and which addresses a name may have."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from proxy.errors import UpstreamUnavailable
from proxy.hub.names import RepoId
from proxy.upstream.redirects import GuardedResolver, RedirectPolicy, Renamed, is_public

HUB = URL("https://huggingface.co")
HERE = HUB / "org/model/resolve/main/a.bin"
REPO = RepoId("org/model")


def policy(*hosts: str, base: URL = HUB) -> RedirectPolicy:
    return RedirectPolicy("hub", base, hosts)


@pytest.mark.parametrize(
    ("hosts", "location"),
    [
        ((), "/api/resolve-cache/models/org/model/sha/a.bin?x=1"),
        ((), "https://huggingface.co/x"),
        ((), "https://HuggingFace.co:443/x"),
        ((), "//huggingface.co/x"),
        (("*.hf.co",), "https://cdn-lfs.hf.co/x"),
        (("*.hf.co",), "https://a.b.hf.co:443/x"),
        (("*.hf.co:8443",), "https://a.hf.co:8443/x"),
        (("cdn.example",), "https://cdn.example:8443/x"),
        (("cdn.example:8443",), "https://cdn.example:8443/x"),
        (("10.0.0.7:9000",), "https://10.0.0.7:9000/x"),
        (("[fd00::7]:9000",), "https://[fd00::7]:9000/x"),
        (("[fd00::7]",), "https://[fd00::7]/x"),
    ],
)
def test_a_host_that_the_operator_named_is_followed(hosts: tuple[str, ...], location: str) -> None:
    assert policy(*hosts).target(HERE, location, REPO).scheme == "https"


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/x",
        "https://huggingface.co.evil.example/x",
        "https://huggingface.co./x",
        "https://huggingface.co:8443/x",
        "https://evilhf.co/x",
        "https://hf.co/x",
        "https://cdn.hf.co:8443/x",
        "http://cdn.hf.co/x",
        "http://huggingface.co/x",
        "https://user@cdn.hf.co/x",
        "https://user:password@huggingface.co/x",
        "https://huggingface.co@evil.example/x",
        "https://huggingface.co\\@evil.example/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://127.1/x",
        "file:///etc/passwd",
        "gopher://cdn.hf.co/x",
        "ftp://cdn.hf.co/x",
        "javascript:alert(1)",
        "https://cdn.hf.co:99999/x",
        "https://xn--a/x",
        "https://é.hf.co/x",
        "https://\udcff.hf.co/x",
        "https://cdn.hf.co:0x50/x",
        "https://a..hf.co/x",
        "https://.hf.co/x",
        f"https://{'a' * 64}.hf.co/x",
    ],
)
def test_everything_else_is_refused(location: str) -> None:
    with pytest.raises(UpstreamUnavailable):
        policy("*.hf.co").target(HERE, location, REPO)


def test_a_wildcard_never_admits_an_address() -> None:
    with pytest.raises(UpstreamUnavailable, match="redirect_hosts"):
        policy("*.0.0.1").target(HERE, "https://127.0.0.1/x", REPO)


def test_a_refusal_names_the_host_and_the_key() -> None:
    with pytest.raises(UpstreamUnavailable, match=r"evil\.example:443.*redirect_hosts"):
        policy().target(HERE, "https://evil.example/x", REPO)


def test_http_may_lead_to_http_if_the_upstream_is_http() -> None:
    lan = policy("cdn.lan", base=URL("http://hub.lan:8080"))
    assert lan.target(URL("http://hub.lan:8080/x"), "http://cdn.lan/y", None).host == "cdn.lan"


def test_https_once_reached_is_not_left_again() -> None:
    lan = policy("cdn.lan", base=URL("http://hub.lan"))
    with pytest.raises(UpstreamUnavailable, match="down to http"):
        lan.target(URL("https://hub.lan/x"), "http://cdn.lan/y", None)


def test_an_http_hub_may_move_itself_to_https() -> None:
    lan = policy(base=URL("http://hub.lan"))
    assert lan.target(URL("http://hub.lan/x"), "https://hub.lan/x", None).port == 443


def test_a_query_stays_as_it_was_signed_and_a_fragment_goes() -> None:
    target = policy("*.hf.co").target(HERE, "https://a.hf.co/x%2Fy?S=a%2Bb~+c%3D#top", REPO)
    assert target.raw_path_qs == "/x%2Fy?S=a%2Bb~+c%3D"
    assert not target.raw_fragment


@pytest.mark.parametrize(
    "location",
    [
        "/org/other/resolve/main/a.bin",
        "/Org/model/resolve/main/a.bin",
        "/datasets/org/model/resolve/main/a.bin",
        "/api/models/org/other/tree/main",
        "/api/resolve-cache/models/org/other/sha/a.bin",
        "/api/resolve-cache/datasets/org/model/sha/a.bin",
    ],
)
def test_a_redirect_does_not_change_the_repository(location: str) -> None:
    with pytest.raises(Renamed):
        policy().target(HERE, location, REPO)
    assert policy().target(HERE, location, None)


def test_the_repository_is_recognised_below_a_path_prefix() -> None:
    prefixed = policy(base=URL("https://proxy.lan/hf"))
    here = URL("https://proxy.lan/hf/org/model/resolve/main/a.bin")
    assert prefixed.target(here, "/hf/org/model/resolve/sha/a.bin", REPO)
    with pytest.raises(Renamed):
        prefixed.target(here, "/hf/org/other/resolve/sha/a.bin", REPO)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.1.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:1.1.1.1", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::101:101", True),
        ("2002:7f00:1::", False),
        ("::7f00:1", False),
        ("not an address", False),
    ],
)
def test_an_address_is_public_or_not(address: str, public: bool) -> None:
    assert is_public(address) is public


class FakeResolver(AbstractResolver):
    """Every name has these addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in self.addresses
        ]

    async def close(self) -> None:
        pass


async def resolved(host: str, *addresses: str, hosts: tuple[str, ...] = ()) -> list[str]:
    resolver = GuardedResolver(policy(*hosts), FakeResolver(*addresses))
    return [one["host"] for one in await resolver.resolve(host, 443)]


async def test_private_addresses_of_a_name_are_dropped() -> None:
    assert await resolved("cdn.hf.co", "10.0.0.1", "1.1.1.1", hosts=("*.hf.co",)) == ["1.1.1.1"]


async def test_a_name_with_private_addresses_only_does_not_resolve() -> None:
    with pytest.raises(OSError, match="private addresses only"):
        await resolved("cdn.hf.co", "127.0.0.1", hosts=("*.hf.co",))


@pytest.mark.parametrize("host", ["huggingface.co", "cdn.lan"])
async def test_a_name_that_the_operator_wrote_may_be_private(host: str) -> None:
    assert await resolved(host, "10.0.0.1", hosts=("cdn.lan",)) == ["10.0.0.1"]
