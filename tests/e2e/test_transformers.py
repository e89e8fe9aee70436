"""transformers and what stands on it: configurations, tokenizers, tasks, and models that run."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.tasks import demo_upstream
from tests.e2e import clients
from tests.e2e.conftest import TINY, MakeDevice
from tests.e2e.device import Call, Device, digests, truth
from tests.e2e.marks import E2E, only
from tests.e2e.mirrors import CONTACT, MirrorProcess
from tests.fakes.acme import SPECIAL, WORDS
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import File, Repo, World, lfs, regular

pytestmark = E2E

TORCH = "transformers-5.23.0"
MINILM = demo_upstream.REPO
REVISIONS = ("main", "v1.0", "feature/x", "refs/pr/1")
TEXT = "A mirror serves the locked bytes"
IDS = [2, *(len(SPECIAL) + WORDS.index(word) for word in TEXT.lower().split()), 3]
DIFFUSER: dict[str, File | None] = {
    "model_index.json": regular(
        '{"_class_name": "DDPMPipeline", "_diffusers_version": "0.42.0",'
        ' "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}'
    ),
    "scheduler/scheduler_config.json": regular(
        '{"_class_name": "DDPMScheduler", "num_train_timesteps": 77}'
    ),
    "unet/config.json": regular('{"_class_name": "UNet2DModel", "sample_size": 8}'),
    "unet/diffusion_pytorch_model.safetensors": lfs(Content("unet", 40_000)),
}
_RUN_S = 110.0  # torch is imported in 5 s, and in 30 s when it is compiled

both = only(*clients.TRANSFORMERS)


@pytest.fixture(scope="module")
def hub(environments: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """An upstream where acme/tiny has weights that run, and where a diffusers pipeline is."""
    clients.ensure([TORCH])
    home = tmp_path_factory.mktemp("maker")
    maker = Device(TORCH, "http://127.0.0.1:9", home)
    (made,) = maker.start(_call("make_classifier", folder=str(home / "model"))).outcomes(_RUN_S)
    with HubProcess() as hub:
        weights = made.folder / "model.safetensors"
        hub.commit("acme/tiny", {weights.name: lfs(weights.read_bytes())})
        hub.commit("acme/diffuser", DIFFUSER)
        yield hub


@pytest.fixture(scope="module")
def library(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorProcess]:
    """A mirror of that."""
    folder = tmp_path_factory.mktemp("library")
    mirror = MirrorProcess(folder, hub.url, (*TINY, "acme/diffuser@main"))
    mirror.lock_all()
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.stop()


@pytest.fixture(scope="module")
def model() -> Path:
    """all-MiniLM-L6-v2, as its package holds it."""
    found = demo_upstream.find_model()
    assert found is not None, f"{demo_upstream.PACKAGE} is not installed: make test does that"
    return found


@pytest.fixture(scope="module")
def minilm(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorProcess]:
    """A warm mirror of two versions of it that differ in a few weights. Its upstream is gone."""
    root = tmp_path_factory.mktemp("minilm")
    demo_upstream.lay_out(model, root / "cache")
    pairs = (f"{MINILM}@v1", f"{MINILM}@v2")
    mirror = MirrorProcess(root / "mirror", f"file://{root}/cache", pairs)
    mirror.lock_all()
    warm = mirror.command("warm")
    assert warm.status == 0, warm.stderr
    shutil.rmtree(root / "cache")
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.stop()


@both
def test_a10_a11_configurations_and_tokenizers_of_every_revision(
    library: MirrorProcess, hub: HubProcess, device: MakeDevice
) -> None:
    sources = [{"repo": "acme/tiny"}]
    sources += [{"repo": "acme/tiny", "revision": revision} for revision in REVISIONS[1:]]
    calls = [_call("config", **source) for source in sources]
    calls += [_call("tokens", text=TEXT, **source) for source in sources]
    hub.reset()
    got = device(library.url).start(*calls).outcomes(_RUN_S)
    assert not [one.trace for one in got if one.error]
    assert [one.value for one in got[:4]] == [*REVISIONS]
    assert [one.value for one in got[4:]] == [
        {"ids": IDS, "revision": revision} for revision in REVISIONS
    ]
    # Both look for a dozen optional files that are not there, and the lock knows that.
    names = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {seen.path for seen in hub.requests()} <= names
    hub.reset()
    again = device(library.url).start(*calls).outcomes(_RUN_S)
    assert [one.value for one in again] == [one.value for one in got]
    assert hub.requests() == []


@both
def test_a27_a_pipeline_learns_its_task_from_the_locked_info(
    library: MirrorProcess, device: MakeDevice, client: str
) -> None:
    calls = [_call("task", repo="acme/tiny")]
    if client == TORCH:
        calls.append(_call("classify", repo="acme/tiny", text=TEXT))
    task, *runs = device(library.url).start(*calls).outcomes(_RUN_S)
    assert task.value == "text-classification", task.trace
    for run in runs:
        assert isinstance(run.value, dict), run.trace
        assert run.value["task"] == "text-classification"
        assert {one["label"] for one in run.value["said"]} <= {"LABEL_0", "LABEL_1"}


@both
def test_a_model_that_is_not_listed_is_refused_in_our_words(
    library: MirrorProcess, device: MakeDevice, client: str
) -> None:
    got = device(library.url).start(_call("config", repo="acme/other")).outcome(_RUN_S)
    assert got.error == "OSError", got.trace
    sentence = "acme/other is not on this mirror's allowlist"
    assert sentence in got.trace
    assert CONTACT in got.trace
    if client == TORCH:  # its hub prints X-HF-Warning
        assert sentence in got.stderr


@only(TORCH)
@pytest.mark.case("model", client="transformers 5.23.0")
def test_a_model_from_the_mirror_computes_what_it_computes_from_its_package(
    minilm: MirrorProcess, device: MakeDevice, model: Path
) -> None:
    text = f"{TEXT} {_changed_word(model)}"
    commit = minilm.pair(f"{MINILM}@v1")["commit"]
    calls = [
        _call("embed", text=text, repo=str(model)),
        _call("embed", text=text, repo=MINILM, revision="v1"),
        _call("embed", text=text, repo=MINILM, revision=commit),
        _call("embed", text=text, repo=MINILM, revision="v2"),
    ]
    got = device(minilm.url).start(*calls).outcomes(_RUN_S)
    assert not [one.trace for one in got if one.error]
    package, locked, by_commit, other = [one.value for one in got]
    assert isinstance(package, list)
    assert len(package) == 384
    assert locked == package
    assert by_commit == package
    assert other != package  # or this test could not see a difference


@only("sentence-transformers-6.2.0")
@pytest.mark.case("model", client="sentence-transformers 6.2.0")
def test_sentence_transformers_computes_what_it_computes_from_the_package(
    minilm: MirrorProcess, device: MakeDevice, model: Path
) -> None:
    calls = [
        _call("encode", text=TEXT, repo=str(model)),
        _call("encode", text=TEXT, repo=MINILM, revision="v1"),
    ]
    package, locked = device(minilm.url).start(*calls).outcomes(_RUN_S)
    assert not locked.error, locked.trace
    assert locked.value == package.value, package.trace


@only("diffusers-0.42.1")
@pytest.mark.case("files", client="diffusers 0.42.1")
def test_diffusers_takes_a_pipeline_apart(library: MirrorProcess, device: MakeDevice) -> None:
    calls = [
        _call("diffusers", repo="acme/diffuser", revision=revision)
        for revision in ("main", library.pair("acme/diffuser@main")["commit"])
    ]
    repo: Repo = World().repo("acme/diffuser")
    repo.commit(DIFFUSER)
    for got in device(library.url).start(*calls).outcomes(_RUN_S):
        assert isinstance(got.value, dict), got.trace
        folder = Path(got.value.pop("folder"))
        assert digests(folder) == truth(repo.at())
        assert got.value == {"pipeline": "DDPMPipeline", "unet": 8, "steps": 77}


def _changed_word(model: Path) -> str:
    """A word whose vector differs in v2: those of the middle of the weights."""
    with (model / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        middle = file.seek(0, os.SEEK_END) // 2 - 8 - length
    table = header["embeddings.word_embeddings.weight"]
    start, stop = table["data_offsets"]
    assert start <= middle < stop, "v2 changes something else"
    words = (model / "vocab.txt").read_text("utf-8").split("\n")
    row: int = (middle - start) // (4 * table["shape"][1]) + 1  # the one before is changed in part
    return words[row].removeprefix("##")


def _call(name: str, **arguments: object) -> Call:
    return f"with_transformers.{name}", arguments
