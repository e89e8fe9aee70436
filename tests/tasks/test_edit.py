"""add and remove: every other line of allowlist.yaml stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigError
from proxy.hub.names import Pair, RepoId, Revision
from proxy.pins import allowlist
from proxy.pins.allowlist import Allowed
from proxy.tasks import edit

FULL = """\
# what we serve
allow:   # in this order

  # speech
  - openai/whisper-tiny@main   # the small one
  # text
  - repo: acme/tiny
    revision: main
    notice: |
      # this is no comment
      read me
    # still about tiny

  # the last one
  - acme/other@v1
  # - acme/example@main
"""


def allowed(text: str, **more: object) -> Allowed:
    pair = Pair(text)
    return Allowed(pair.repo, pair.revision, 0, **more)  # type: ignore[arg-type]  # fields by name


async def add(file: Path, text: str, **more: object) -> str:
    await edit.add(file, allowed(text, **more))
    return file.read_text()


async def test_an_entry_is_added_below_the_last_one(tmp_path: Path) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text(FULL)
    assert await add(file, "acme/new@main") == FULL.replace(
        "  - acme/other@v1\n", "  - acme/other@v1\n  - acme/new@main\n"
    )


async def test_only_the_entry_itself_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text(FULL)
    await edit.remove(file, Pair("openai/whisper-tiny@main"))
    first = FULL.replace("  - openai/whisper-tiny@main   # the small one\n", "")
    assert file.read_text() == first
    await edit.remove(file, Pair("acme/tiny@main"))
    start, stop = first.index("  - repo:"), first.index("\n  # the last one")
    assert file.read_text() == first[:start] + first[stop:]


async def test_adding_and_removing_gives_the_same_bytes(tmp_path: Path) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text(FULL)
    await add(file, "acme/new@main", include=("*.json",), share_lan=True, notice='say "hi": #1')
    assert (await edit.remove(file, Pair("acme/new@main"))).changed
    assert file.read_text() == FULL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "allow:\n",
        "allow: []\n",
        "allow: [\n]\n",
        "allow:",
        "allow:\n- acme/first@main",
        "allow:\n      - acme/first@main\n",
        "allow:\r\n  - acme/first@main\r\n",
        'allow:\n  - "acme/first@main"\n',
        "allow:\n  -\n    repo: acme/first\n    revision: main\n",
        "---\nallow:\n  - acme/first@main\n...\n",
    ],
)
async def test_any_usual_layout_can_be_edited(tmp_path: Path, text: str) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_bytes(text.encode())
    before = allowlist.loads(text).allowed
    await edit.add(file, allowed("acme/new@main"))
    after = allowlist.load(file).allowed
    assert [one.pair for one in after] == [*(one.pair for one in before), "acme/new@main"]
    if "\r" in text:
        assert b"\r\n" in file.read_bytes()
        assert b"main\n" not in file.read_bytes()


async def test_a_new_file_is_made(tmp_path: Path) -> None:
    assert await add(tmp_path / "allowlist.yaml", "acme/a@main") == "allow:\n  - acme/a@main\n"


async def test_the_last_entry_can_go(tmp_path: Path) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text("allow:\n  - acme/a@main\n")
    await edit.remove(file, Pair("acme/a@main"))
    assert allowlist.load(file).allowed == ()
    assert await add(file, "acme/b@main") == "allow:\n  - acme/b@main\n"


async def test_an_entry_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text(FULL)
    assert not (await edit.add(file, allowed("acme/tiny@main"))).changed
    assert not (await edit.remove(file, Pair("acme/nobody@main"))).changed
    assert file.read_text() == FULL


@pytest.mark.parametrize(
    "text",
    [
        "allow: [acme/a@main]\n",
        "allow:\n  - acme/a@main\n  - acme/a@main\n",
        "allow: 3\n",
        "allow:\n  - acme/a@main\nother: 1\n",
    ],
)
async def test_what_cannot_be_edited_safely_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        await add(file, "acme/new@main")
    assert file.read_text() == text


async def test_an_entry_that_would_break_the_list_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text("allow:\n  - acme/a@main\n")
    with pytest.raises(ConfigError, match="already answered"):
        await add(file, "acme/a@v1", serve_as=(Revision("main"),))
    assert file.read_text() == "allow:\n  - acme/a@main\n"


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1)


revisions = st.sampled_from(["v'1", "&x", "a#b", "1.10", "no", "!t", "%d", "`", "refs/pr/1"])


@given(include=st.lists(texts, max_size=3), notice=texts, revision=revisions)
def test_what_is_written_is_what_is_read(include: list[str], notice: str, revision: str) -> None:
    wanted = Allowed(RepoId("acme/a"), Revision(revision), 0, include=tuple(include), notice=notice)
    text = edit._with("allow:\n  - acme/b@main\n", wanted, Path("f"))
    got = allowlist.loads(text).allowed[1]
    assert (got.revision, got.include, got.notice) == (revision, tuple(include), notice)


POLICY = """# top
formats:
  deny: [.bin]  # no pickle
allow:
{indent}- org/a@main   # one
{indent}- repo: org/b
{indent}  revision: main

# below
{more}"""


@pytest.mark.parametrize("indent", ["", "  "])
@pytest.mark.parametrize("more", ["", "...\n"])
async def test_what_stands_beside_the_entries_stays(tmp_path: Path, indent: str, more: str) -> None:
    file = tmp_path / "allowlist.yaml"
    text = POLICY.format(indent=indent, more=more)
    above, _, list_ = text.partition("allow:")
    for layout in (text, f"allow:{list_.replace(more, '')}{above}"):
        file.write_text(layout)
        pair = Pair("org/c@main")
        wanted = Allowed(pair.repo, pair.revision, 0, exclude=("*.md",))
        assert (await edit.add(file, wanted)).changed
        held = allowlist.load(file)
        assert held.denied == (".bin",)
        assert [str(one.pair) for one in held.allowed][-1] == "org/c@main"
        await edit.remove(file, pair)
        assert file.read_text() == layout
        for gone in ("org/b@main", "org/a@main"):
            await edit.remove(file, Pair(gone))
        assert allowlist.load(file) == allowlist.Allowlist(denied=(".bin",))
        await edit.add(file, Allowed(pair.repo, pair.revision, 0))
        assert len(allowlist.load(file).allowed) == 1
