"""JavaScript on Node: @huggingface/hub and transformers.js."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e import tools
from tests.e2e.conftest import MakeMirror
from tests.e2e.device import digests, truth
from tests.e2e.marks import E2E, JS_HUB, TRANSFORMERS_JS
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import World, regular

pytestmark = [*E2E, pytest.mark.usefixtures("node_packages")]

Call = tuple[str, Mapping[str, object]]


@pytest.mark.case("A22", client=JS_HUB)
def test_a_snapshot_equals_the_source(
    start_mirror: MakeMirror, tmp_path: Path, world: World
) -> None:
    # This client does not encode `#` and `?`: it cannot ask for such names, at the Hub neither.
    mirror = start_mirror('{repo: acme/tiny, revision: main, exclude: ["*#*"]}')
    given = {"repo": "acme/tiny", "hubUrl": mirror.url}
    (folder,) = tools.node(tmp_path, ("snapshotDownload", given))
    source = truth(world.repo("acme/tiny").at("main"))
    assert digests(Path(str(folder))) == {
        path: digest for path, digest in source.items() if "#" not in path
    }


@pytest.mark.case("A22", "A24", client=JS_HUB)
def test_files_are_listed_of_a_pull_request_and_of_2500(
    site: MirrorProcess, tmp_path: Path, world: World
) -> None:
    given = {"hubUrl": site.url, "recursive": True}
    pull, branch, many = tools.node(
        tmp_path,
        ("listFiles", {**given, "repo": "acme/tiny", "revision": "refs/pr/1"}),
        ("listFiles", {**given, "repo": "acme/tiny", "revision": "feature/x"}),
        ("listFiles", {**given, "repo": "acme/many"}),
    )
    files = sorted(world.repo("acme/tiny").at("refs/pr/1").files)
    assert sorted(map(str, pull)) == sorted(map(str, branch)) == files  # type: ignore[call-overload]  # JSON
    assert sorted(map(str, many)) == sorted(world.repo("acme/many").at("main").files)  # type: ignore[call-overload]  # JSON


@pytest.mark.case("A21", "A22", client=JS_HUB)
def test_single_files_the_empty_one_and_one_that_is_not_there(
    site: MirrorProcess, tmp_path: Path, world: World
) -> None:
    files = world.repo("acme/tiny").at("main").files
    names = ("config.json", "model.safetensors", "empty.txt", "dir with space/ü ñ 日本語.txt")
    given = {"repo": "acme/tiny", "hubUrl": site.url}
    calls: list[Call] = [("downloadFile", {**given, "path": name}) for name in names]
    calls += [("fileExists", {**given, "path": name}) for name in ("config.json", "missing.txt")]
    *got, there, missing = tools.node(tmp_path, *calls)
    assert got == [{"size": files[name].size, "sha256": files[name].digest.hex} for name in names]
    assert (there, missing) == (True, False)


@pytest.mark.case("A23", client=TRANSFORMERS_JS)
def test_a_tokenizer_of_a_repository_that_is_locked_by_a_tag_only(
    start_mirror: MakeMirror, upstream: HubProcess, tmp_path: Path
) -> None:
    upstream.commit("acme/words", {name: regular(text) for name, text in tokenizer().items()})
    upstream.tag("acme/words", "v1.0")
    upstream.commit("acme/words", {"tokenizer.json": regular("{}")})
    mirror = start_mirror("acme/words@v1.0")
    given = {"repo": "acme/words", "hubUrl": mirror.url, "text": "hello world"}
    assert tools.node(
        tmp_path, ("tokenize", {**given, "revision": "v1.0"}), ("tokenize", given)
    ) == [[1, 2], [1, 2]]


def tokenizer() -> dict[str, str]:
    """The files of the smallest tokenizer that there is."""
    words = {"[UNK]": 0, "hello": 1, "world": 2}
    return {
        "config.json": json.dumps({"model_type": "bert"}),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}),
        "tokenizer.json": json.dumps(
            {
                "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
                "normalizer": None, "pre_tokenizer": {"type": "BertPreTokenizer"},
                "post_processor": None, "decoder": None,
                "model": {
                    "type": "WordPiece", "unk_token": "[UNK]", "vocab": words,
                    "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                },
            }
        ),
    }  # fmt: skip
