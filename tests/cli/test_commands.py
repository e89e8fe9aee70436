"""Commands as a person types them: data, talk, and the status they end with."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy import config as configs
from proxy.cli.main import COMMANDS
from proxy.pins import allowlist
from proxy.tasks import warm
from proxy.tasks.demo_upstream import REPO, Laid
from proxy.upstream.paced import Pace
from tests.cli.conftest import PAIR, hubpin


def test_every_command_explains_itself() -> None:
    listed = hubpin("--help").out
    for command in COMMANDS:
        assert command in listed
        assert hubpin(command, "--help").status == 0


def test_the_version_is_data() -> None:
    assert hubpin("--version").out.startswith("hubpin ")


def test_init_writes_files_that_are_read_without_a_word(place: Path) -> None:
    assert hubpin("init").status == 0
    defaults, written = configs.Config(), configs.load()
    assert written.file == place / "hubpin.yaml"
    for key in configs.Config.__dataclass_fields__:
        assert f"{key}:" in written.file.read_text() or key == "file"
        if key not in ("file", "data", "allowlist", "upstreams"):
            assert getattr(written, key) == getattr(defaults, key)
    assert [one.url for one in written.upstreams] == [one.url for one in defaults.upstreams]
    assert allowlist.load(place / "allowlist.yaml").allowed == ()


def test_the_examples_of_init_are_entries_once_they_are_uncommented(place: Path) -> None:
    hubpin("init")
    file = place / "allowlist.yaml"
    lines = file.read_text().splitlines()
    at = lines.index("allow:")
    text = "\n".join([*lines[: at + 1], *(line.replace("# ", "", 1) for line in lines[at + 1 :])])
    assert len(allowlist.loads(text).allowed) == 3


def test_init_never_overwrites(place: Path) -> None:
    (place / "hubpin.yaml").write_text("contact: me\n")
    assert hubpin("init", "--json").json() == {
        "written": ["allowlist.yaml"],
        "kept": ["hubpin.yaml"],
    }
    assert (place / "hubpin.yaml").read_text() == "contact: me\n"


def test_the_allowlist_at_the_top_of_the_project_works() -> None:
    file = Path(__file__).parents[2] / "allowlist.yaml"
    assert [one.repo for one in allowlist.load(file).allowed] == [REPO]
    text = file.read_text()
    head, _, examples = text.partition("  # Short form")
    uncommented = "\n".join(
        line.replace("# ", "", 1) if line.startswith(("  # -", "  #   ")) else line
        for line in examples.splitlines()[1:]
    )
    assert len(allowlist.loads(head + "\n" + uncommented).allowed) == 5


def test_add_and_remove_edit_the_allowlist(site: Path) -> None:
    before = (site / "allowlist.yaml").read_text()
    assert hubpin("add", "acme/a@main", "--include", "*.json").status == 0
    assert "already" in hubpin("add", "acme/a@main").out
    assert hubpin("remove", "acme/a@main").status == 0
    assert (site / "allowlist.yaml").read_text() == before
    assert hubpin("remove", "acme/a@main").status == 1


def test_lock_warm_verify_and_gc_agree(site: Path) -> None:
    assert hubpin("lock", "--check").status == 1
    locked = hubpin("lock")
    assert locked.status == 0
    assert f"locked    {PAIR}" in locked.out
    assert hubpin("lock", "--check").status == 0
    assert "1 files fetched" in hubpin("warm").out
    assert "4 files right, 0 bad" in hubpin("verify").out
    assert hubpin("gc").out.startswith("deleted 0 blobs")
    pair = hubpin("status", "--json").json()["pairs"][0]
    assert pair["held_files"] == pair["files"] == 4


def test_drift_is_reported_until_it_is_followed(site: Path, upstream: Laid) -> None:
    hubpin("lock")
    upstream.point("v1", upstream.v2)
    checked = hubpin("lock", "--check")
    assert checked.status == 1
    assert "drifted" in checked.out
    assert "1 changed" in hubpin("diff", PAIR, "upstream").out
    kept = hubpin("lock")
    assert "kept" in kept.out
    moved = hubpin("lock", "--update", PAIR)
    assert moved.status == 0
    assert upstream.v1 in moved.out
    assert upstream.v2 in moved.out
    assert hubpin("lock", "--check").status == 0


def test_two_tags_are_compared(site: Path) -> None:
    hubpin("add", f"{REPO}@v2")
    hubpin("lock")
    delta = hubpin("diff", PAIR, f"{REPO}@v2", "--json").json()["delta"]
    assert [one["path"] for one in delta["changed"]] == ["model.safetensors"]
    assert delta["bytes_to_move"] == 512_000


def test_events_are_json_lines(site: Path) -> None:
    events = hubpin("lock", "--json").events()
    assert [event["event"] for event in events][-2:] == ["locked", "finished"]
    assert events[-2]["pin"]["files"] == 4
    assert hubpin("warm", "--json").events()[-1]["fetched_files"] == 1
    assert hubpin("verify", "--json").events()[-1]["right"] == 4
    assert hubpin("gc", "--dry-run", "--json").events()[-1]["dry_run"] is True


def test_a_pair_that_cannot_be_locked_fails_the_command(site: Path) -> None:
    hubpin("add", "acme/nobody@main")
    said = hubpin("lock")
    assert said.status == 1
    assert "acme/nobody@main" in said.err
    assert f"locked    {PAIR}" in said.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["add", "no-revision"], "write repo@revision"),
        (["warm", "acme/unknown@main"], "not on this mirror's allowlist"),
        (["lock", "--update", "acme/unknown@main"], "not on this mirror's allowlist"),
        (["-c", "nowhere.yaml", "lock"], "nowhere.yaml"),
        (["env", "--url", "http://x/path"], "without a path"),
        (["env", "--shell", "fish"], "fish"),
        (["warm", "--jobs", "0"], "--jobs"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_input_is_status_2_and_one_clear_line(
    site: Path, arguments: list[str], word: str
) -> None:
    said = hubpin(*arguments)
    assert said.status == 2
    assert word in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_broken_allowlist_is_named_with_its_line(site: Path) -> None:
    (site / "allowlist.yaml").write_text("allow:\n  - acme/a@main\n  - not a pair\n")
    said = hubpin("lock")
    assert said.status == 2
    assert "allowlist.yaml:3" in said.err


def test_words_of_others_cannot_paint_or_move_the_cursor(site: Path) -> None:
    said = hubpin("warm", "[red]x[/red]\x1b[2J@main")
    assert said.status == 2
    assert "[red]" in said.err
    assert "\x1b" not in said.err


def test_status_shows_a_pair_on_one_line_with_its_licence(site: Path) -> None:
    long = f"{REPO}@refs/pr/{'1' * 200}"
    (site / "allowlist.yaml").write_text(f"allow:\n  - {PAIR}\n  - {long}\n")
    hubpin("lock")
    (line,) = [line for line in hubpin("status").out.splitlines() if PAIR in line]
    assert "apache-2.0" in line
    assert "4" in line.split("/")[-1]
    assert any(long in line and "not locked" in line for line in hubpin("status").out.splitlines())


def test_warm_shows_notices(site: Path) -> None:
    repo, _, revision = PAIR.partition("@")
    entry = f"repo: {repo}, revision: {revision}, notice: Only for research."
    (site / "allowlist.yaml").write_text(f"allow:\n  - {{{entry}}}\n")
    hubpin("lock")
    assert f"notice for {PAIR}: Only for research." in hubpin("warm").err
    assert hubpin("warm", "--json").events()[0]["event"] == "noticed"


@pytest.mark.parametrize("json", [False, True])
def test_warm_says_that_it_waits_for_its_hours(
    site: Path, monkeypatch: pytest.MonkeyPatch, json: bool
) -> None:
    hubpin("lock")
    looks = iter([7500.0, 0.02])  # and from then on it is open
    monkeypatch.setattr(Pace, "closed_s", lambda *_: next(looks, 0.0))
    monkeypatch.setattr(warm, "_LOOK_AGAIN_S", 0.01)
    said = hubpin("warm", "--window", "22:00-06:00", "--jobs", "1", *(["--json"] if json else []))
    if json:
        assert {"event": "waiting", "wait_s": 7500.0} in said.events()
        assert said.events()[-1]["fetched_files"] == 1
    else:
        assert said.err.count("waiting for the window: it opens in 2 h 5 min") == 1
        assert "1 files fetched" in said.out


def test_a_policy_by_format_is_tried_out_before_it_is_made(site: Path) -> None:
    hubpin("lock")
    said = hubpin("lock", "--check", "--deny", ".safetensors")
    assert said.status == 0
    assert "1 of 4 files refused" in said.out
    assert "model.safetensors" in said.out
    assert hubpin("lock", "--deny", ".bin").status == 2
    assert hubpin("lock", "--check", "--deny", "bin").status == 2


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--check", "--update", PAIR), "--update"),
        (("--check", "--update", PAIR, "--force"), "--update"),
        (("--check", "--force"), "--force"),
        (("--force",), "--update"),
    ],
)
def test_options_that_would_do_nothing_are_a_mistake(
    site: Path, options: tuple[str, ...], word: str
) -> None:
    said = hubpin("lock", *options)
    assert said.status == 2
    assert word in said.err
    assert not (site / "allowlist.lock").exists()


def test_status_works_without_a_server(site: Path) -> None:
    said = hubpin("status")
    assert said.status == 0
    assert "not running" in said.out
    assert "not locked" in said.out
