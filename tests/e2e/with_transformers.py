"""What a device does with transformers and what stands on it; agent.py calls these by name.

It runs with the client's own Python, so it imports nothing of ours.
"""

from __future__ import annotations

import importlib
from typing import Any


def config(**source: object) -> str:
    """The revision that the fixture writes into config.json."""
    loaded = _of("AutoConfig").from_pretrained(**_named(source))
    return str(loaded.revision_of_the_fixture)


def tokens(text: str, **source: object) -> dict[str, object]:
    loaded = _of("AutoTokenizer").from_pretrained(**_named(source))
    return {
        "ids": loaded(text)["input_ids"],
        "revision": loaded.init_kwargs.get("revision_of_the_fixture"),
    }


def task(repo: str) -> str:
    """The task of `pipeline(model=repo)`, which the Hub knows and the files do not."""
    return str(importlib.import_module("transformers.pipelines").get_task(repo))


def classify(repo: str, text: str) -> dict[str, object]:
    """A pipeline without a task, run."""
    pipe = _of("pipeline")(model=repo, device="cpu")
    return {"task": pipe.task, "said": pipe(text)}


def make_classifier(folder: str) -> str:
    """Write the weights of a model that fits acme/tiny's config.json."""
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    shape = _of("BertConfig")(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    _of("BertForSequenceClassification")(shape).save_pretrained(folder)
    return folder


def embed(text: str, **source: object) -> list[float]:
    """The mean of the last layer, as the model card of all-MiniLM-L6-v2 has it."""
    torch = importlib.import_module("torch")
    named = _named(source)
    tokenizer = _of("AutoTokenizer").from_pretrained(**named)
    model = _of("AutoModel").from_pretrained(**named)
    words = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        layer = model(**words)[0]
    mask = words["attention_mask"].unsqueeze(-1)
    mean = (layer * mask).sum(1) / mask.sum(1)
    found: list[float] = torch.nn.functional.normalize(mean)[0].tolist()
    return found


def encode(text: str, repo: str, revision: str | None = None) -> list[float]:
    """The same with sentence-transformers."""
    library = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(repo, revision=revision, device="cpu")
    return [float(number) for number in model.encode(text)]


def diffusers(repo: str, revision: str) -> dict[str, object]:
    """Everything of a diffusers pipeline but its weights, and those as files."""
    library = importlib.import_module("diffusers")
    source = {"pretrained_model_name_or_path": repo, "revision": revision}
    scheduler = library.DDPMScheduler.from_pretrained(
        repo, revision=revision, subfolder="scheduler"
    )
    return {
        "folder": str(library.DiffusionPipeline.download(repo, revision=revision)),
        "pipeline": library.DiffusionPipeline.load_config(**source)["_class_name"],
        "unet": library.UNet2DModel.load_config(**source, subfolder="unet")["sample_size"],
        "steps": scheduler.config.num_train_timesteps,
    }


def _of(name: str) -> Any:
    return getattr(importlib.import_module("transformers"), name)


def _named(source: dict[str, object]) -> dict[str, object]:
    """`repo` is what every from_pretrained has another long name for."""
    return {"pretrained_model_name_or_path": source.pop("repo"), **source}
