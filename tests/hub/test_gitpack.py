"""pkt-lines read back, whatever comes in is lines or a ValueError, and git takes our packs."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.hub import gitoid
from proxy.hub.gitpack import (
    BAND_ROOM,
    DELIMITER,
    FLUSH,
    Mark,
    PackWriter,
    band,
    banded,
    pkt,
    pkts,
)

LINES = st.lists(st.binary(max_size=40).filter(lambda line: not line.endswith(b"\n")))


@given(LINES)
def test_lines_read_back(lines: list[bytes]) -> None:
    body = b"".join(pkt(line + b"\n") + DELIMITER for line in lines) + FLUSH
    want = [one for line in lines for one in (line, Mark.DELIMITER)]
    assert list(pkts(body)) == [*want, Mark.FLUSH]


@given(st.binary() | st.from_regex(rb"[0-9a-f]{4}.{0,20}", fullmatch=True))
def test_any_bytes_are_lines_or_none(body: bytes) -> None:
    try:
        list(pkts(body))
    except ValueError as e:
        assert "pkt-line" in str(e)


@pytest.mark.parametrize("body", [b"0003", b"0002", b"000", b"ffff", b"0009abc", b"+005a", b" 05a"])
def test_a_wrong_length_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="pkt-line"):
        list(pkts(body))


@pytest.mark.parametrize("size", [0, 1, BAND_ROOM - 1, BAND_ROOM, BAND_ROOM + 1, 3 * BAND_ROOM])
def test_the_size_of_what_is_framed_is_known_before(size: int) -> None:
    framed = b"".join(band(1, b"x" * min(BAND_ROOM, size - at)) for at in range(0, size, BAND_ROOM))
    assert len(framed) == banded(size)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 2047, 2048, 300_000])
def test_git_takes_a_pack(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sink = io.BytesIO()
    pack = PackWriter(sink.write, 2)
    tree = gitoid.tree_body([("file", gitoid.blob_oid(content), False)])
    for kind, body in (("blob", content), ("tree", tree)):
        pack.begin(kind, len(body))
        pack.feed(body[:7])
        pack.feed(body[7:])
        pack.end()
    pack.close()
    file = tmp_path / "a.pack"
    file.write_bytes(sink.getvalue())
    subprocess.run(["git", "index-pack", "--strict", file], check=True, capture_output=True)
    listed = subprocess.run(
        ["git", "verify-pack", "-v", file], check=True, capture_output=True, text=True
    ).stdout
    assert f"{gitoid.blob_oid(content)} blob" in listed
    assert f"{gitoid.object_oid('tree', tree)} tree" in listed
