"""The world that acceptance tests share: a little of everything that a Hub holds."""

from __future__ import annotations

import json

from tests.fakes.content import Content
from tests.fakes.world import File, World, lfs, regular

# Names that tell a right encoder from a wrong one.
ODD_NAMES = ("a#b?c%20d+e.txt", "dir with space/ü ñ 日本語.txt", "sub/dir/deep/er/file.json")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # of acme/tiny's vocabulary
WORDS = (
    "the", "a", "mirror", "serves", "locked", "bytes", "and", "no", "others", "to", "every",
    "device", "that", "asks", "it",
)  # fmt: skip
WEIGHTS_SIZE = 3 * 1024 * 1024 + 17  # bytes of acme/tiny's model.safetensors


def acme_world(*, parquet: bytes | None = None, many: int = 2500) -> World:
    """`parquet` is the content of acme/pq's file, for whoever can write such a thing."""
    world = World()
    _tiny(world)
    _datasets(world, parquet)

    app = world.repo("spaces/acme/app")
    app.extra = {"sdk": "gradio", "cardData": {"title": "App", "sdk": "gradio"}}
    app.commit(
        {
            "README.md": regular("---\ntitle: App\nsdk: gradio\n---\n# App\n"),
            "app.py": regular("print('hello')\n"),
            "assets/logo.png": lfs(Content("logo", 20_000)),
        }
    )

    solo = world.repo("solo")
    solo.extra = {"cardData": {"license": "mit"}, "tags": ["license:mit"]}
    solo.commit(
        {
            "README.md": regular("---\nlicense: mit\n---\n# solo\n"),
            "config.json": regular(_config("main")),
            "model.bin": lfs(Content("solo", 100_000)),
        }
    )

    world.repo("acme/many").commit(
        {f"part-{n // 100:02d}/file-{n:04d}.txt": regular(f"file {n}\n") for n in range(many)}
    )
    return world


def _tiny(world: World) -> None:
    tiny = world.repo("acme/tiny")
    card = {"license": "apache-2.0", "pipeline_tag": "text-classification", "tags": ["tiny"]}
    tiny.extra = {
        "cardData": card,
        "pipeline_tag": "text-classification",
        "library_name": "transformers",
        "tags": ["transformers", "bert", "text-classification", "license:apache-2.0"],
    }
    # Each revision has bytes of its own, so that an answer tells which one was served.
    tiny.commit(_tiny_files("v1.0"), title="Version 1.0")
    tiny.tag("v1.0")
    tiny.commit(_tiny_files("main"), title="After 1.0")
    tiny.commit(_tiny_files("feature/x"), branch="feature/x", parent="main", title="Feature x")
    request = tiny.commit(_tiny_files("refs/pr/1"), branch="pr", parent="main", title="Request 1")
    del tiny.branches["pr"]
    tiny.pulls["refs/pr/1"] = request


def _tiny_files(revision: str) -> dict[str, File | None]:
    card = (
        "---\nlicense: apache-2.0\npipeline_tag: text-classification\n"
        f"library_name: transformers\ntags:\n- tiny\n---\n# tiny at {revision}\n"
    )
    return {
        "README.md": regular(card),
        "config.json": regular(_config(revision)),
        "tokenizer.json": regular(_tokenizer()),
        "tokenizer_config.json": regular(_tokenizer_config(revision)),
        "empty.txt": regular(b""),
        "model.safetensors": lfs(Content(f"tiny {revision}", WEIGHTS_SIZE)),
        "onnx/model.onnx": lfs(Content(f"onnx {revision}", 70_000)),
        **{name: regular(f"{name} at {revision}\n") for name in ODD_NAMES},
        "odd/a#b?c%20d+e.bin": lfs(Content(f"odd {revision}", 5000)),
    }


def _config(revision: str) -> str:
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert",
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 30, "revision_of_the_fixture": revision,
    }  # fmt: skip
    return json.dumps(config, indent=1) + "\n"


def _tokenizer() -> str:
    """Words of one language, and nothing below them (tokenizers, `WordLevel`)."""
    words = [*SPECIAL, *WORDS]
    vocabulary = {word: number for number, word in enumerate(words)}
    pieces = [("[CLS]", "SpecialToken"), ("A", "Sequence"), ("[SEP]", "SpecialToken")]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number, "content": word, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": True,
            }
            for number, word in enumerate(SPECIAL)
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{kind: {"id": name, "type_id": 0}} for name, kind in pieces],
            "pair": [
                *({kind: {"id": name, "type_id": 0}} for name, kind in pieces),
                {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {
                name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]}
                for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }  # fmt: skip
    return json.dumps(tokenizer, indent=1) + "\n"


def _tokenizer_config(revision: str) -> str:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64,
        "revision_of_the_fixture": revision,
        **{f"{token.strip('[]').lower()}_token": token for token in SPECIAL},
    }  # fmt: skip
    return json.dumps(config, indent=1) + "\n"


def _datasets(world: World, parquet: bytes | None) -> None:
    rows = [(number, f"row {number}") for number in range(50)]
    card = "---\nlicense: cc-by-4.0\nconfigs:\n- config_name: default\n  data_files: {}\n---\n"
    csvdata = world.repo("datasets/acme/csvdata")
    csvdata.extra = {"cardData": {"license": "cc-by-4.0"}, "tags": ["license:cc-by-4.0"]}
    csvdata.commit(
        {
            "README.md": regular(card.format("data.csv") + "# csvdata\n"),
            "data.csv": regular("id,text\n" + "".join(f"{i},{t}\n" for i, t in rows)),
            "lines.jsonl": regular(
                "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in rows)
            ),
        }
    )
    pq = world.repo("datasets/acme/pq")
    pq.extra = {"cardData": {"license": "mit"}, "tags": ["license:mit"]}
    pq.commit({"README.md": regular("---\nlicense: mit\n---\n# pq\n")})
    if parquet is not None:
        pq.commit({"data/train-00000-of-00001.parquet": lfs(parquet)})
    world.repo("datasets/acme/nocard").commit(
        {"train.csv": regular("id,text\n" + "".join(f"{i},{t}\n" for i, t in rows))}
    )
