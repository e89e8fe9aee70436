"""datasets: whole files of three kinds, and streams that read them in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import clients
from tests.e2e.conftest import MakeDevice, Tap
from tests.e2e.device import Call, Device
from tests.e2e.marks import E2E, only
from tests.e2e.mirrors import CONTACT, MirrorProcess
from tests.e2e.wiretap import Canary
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import lfs

pytestmark = E2E

PARQUET = "data/train-00000-of-00001.parquet"
ROWS = 4_000  # of the parquet file, 1 KiB each
GROUP = 500
PAIRS = ("datasets/acme/csvdata@main", "datasets/acme/nocard@main", "datasets/acme/pq@main")
_RUN_S = 110.0

Read = Callable[[str], Device]

every_version = only(*clients.DATASETS)


@pytest.fixture(scope="module")
def parquet(environments: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clients.ensure(clients.DATASETS[:1])
    home = tmp_path_factory.mktemp("writer")
    writer = Device(clients.DATASETS[0], "http://127.0.0.1:9", home)
    call = _call("write_parquet", file=str(home / "rows.parquet"), count=ROWS, group=GROUP)
    return writer.start(call).outcome(_RUN_S).folder


@pytest.fixture(scope="module")
def library(parquet: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorProcess]:
    """A mirror of the datasets; one of them holds that file."""
    with HubProcess() as hub:
        hub.commit("datasets/acme/pq", {PARQUET: lfs(parquet.read_bytes())})
        mirror = MirrorProcess(tmp_path_factory.mktemp("library"), hub.url, PAIRS)
        mirror.lock_all()
        mirror.start()
        try:
            yield mirror
        finally:
            mirror.stop()


@pytest.fixture
def reader(device: MakeDevice, client: str, canary: Canary) -> Iterator[Read]:
    """`reader(endpoint)`: a device that does as docs/clients.md says, and does not count loads.

    It asks a host that it makes up from the mirror's for an export, gets none and goes on; here
    the proxy refuses it (datasets, utils/_dataset_viewer.py).
    """
    variables = {"HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    if client == "datasets-2.19.2":  # requests would take the made-up host for the mirror
        variables |= {"NO_PROXY": "127.0.0.1/32", "no_proxy": "127.0.0.1/32"}
    yield lambda endpoint: device(endpoint, **variables)
    canary.tried[:] = [one for one in canary.tried if "//datasets-server.127.0.0.1:" not in one]


@every_version
def test_a12_csv_jsonl_and_parquet_have_all_their_rows(
    library: MirrorProcess, reader: Read
) -> None:
    calls = [
        _call("rows", repo="acme/csvdata"),
        _call("rows", repo="acme/csvdata", data_files="lines.jsonl"),
        _call("rows", repo="acme/nocard"),
        _call("rows", repo="acme/pq"),
        _call("rows", repo="acme/pq", revision=library.pair(PAIRS[2])["commit"]),
    ]
    got = reader(library.url).start(*calls).outcomes(_RUN_S)
    assert not [one.trace for one in got if one.error]
    values = [one.value for one in got if isinstance(one.value, dict)]
    assert [value["count"] for value in values] == [50, 50, 50, ROWS, ROWS]
    for value in values[:3]:
        assert value["first"] == {"id": 0, "text": "row 0"}
        assert value["last"] == {"id": 49, "text": "row 49"}
    assert values[3]["last"]["id"] == ROWS - 1
    assert values[4] == values[3]


@every_version
def test_a13_a_stream_of_parquet_reads_ranges(
    library: MirrorProcess, reader: Read, tap: Tap
) -> None:
    wire = tap(library.url)
    calls = [
        _call("streamed", repo="acme/pq"),
        _call("streamed", repo="acme/csvdata"),
        _call("streamed", repo="acme/csvdata", data_files="lines.jsonl", skip=20),
    ]
    parquet, csv, jsonl = reader(wire.url).start(*calls).outcomes(_RUN_S)
    assert isinstance(parquet.value, dict), parquet.trace
    assert parquet.value["id"] == 0
    assert csv.value == {"id": 0, "text": "row 0"}, csv.trace
    assert jsonl.value == {"id": 20, "text": "row 20"}, jsonl.trace
    ranges = [
        one
        for one in wire.asked
        if one.target.endswith(PARQUET) and "\r\nrange: bytes=" in one.headers
    ]
    assert ranges
    assert b"HTTP/1.1 206 " in wire.answered


@every_version
def test_a25_an_endpoint_with_a_trailing_slash(library: MirrorProcess, reader: Read) -> None:
    got = reader(f"{library.url}/").start(_call("rows", repo="acme/csvdata")).outcome(_RUN_S)
    assert isinstance(got.value, dict), got.trace
    assert got.value["count"] == 50


@only("datasets-5.2.0", "datasets-4.8.5")  # what 2.19 says has lost our words
def test_a_dataset_that_is_not_listed_is_refused_in_our_words(
    library: MirrorProcess, reader: Read
) -> None:
    got = reader(library.url).start(_call("rows", repo="acme/other")).outcome(_RUN_S)
    assert got.error == "DatasetNotFoundError", got.trace
    sentence = "datasets/acme/other is not on this mirror's allowlist"
    assert sentence in got.stderr
    assert CONTACT in got.stderr


def _call(name: str, **arguments: object) -> Call:
    return f"with_datasets.{name}", arguments
