"""The part of a container registry's API that Ollama, and llama.cpp before it had a cache of its
own, use for GGUF files.

    GET      /v2/{repo}/manifests/{tag}          tag: a quantisation, a file's name, or `latest`
    HEAD/GET /v2/{repo}/blobs/sha256:{hex}       the file, or the config that is made up here

    {"schemaVersion": 2, "mediaType": …, "config": {"digest", "mediaType", "size"},
     "layers": [{"digest", "mediaType", "size"}, …], "ggufFile": {"rfilename", "blobId", "size", …}}

A tag says nothing about the revision: it is the one that is served for no revision at all.
"""

from __future__ import annotations

import hashlib
import json
import re

from aiohttp import web

from proxy.errors import EntryNotFound, InvalidName
from proxy.hub import wire
from proxy.hub.names import Digest
from proxy.hub.urls import RegistryAddress
from proxy.hub.wire import Json
from proxy.pins.catalog import Snapshot
from proxy.pins.lock import Entry
from proxy.server import bodies, ready, resolve
from proxy.server.ready import Head
from proxy.server.site import Call

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_MODEL = "application/vnd.ollama.image.model"
_PROJECTOR = "application/vnd.ollama.image.projector"
# Ollama (server/download.go, downloadChunk) reads its 16 ranges without a deadline, looks at no
# status, and checks the digest of the whole at the end: better to let it wait than to say "later".
PATIENCE_S = 3600.0
_PREFERRED = ("Q4_K_M", "Q4_0", "Q4_K_S", "Q5_K_M", "Q8_0")  # for `latest`
_QUANT = re.compile(r"(?<![A-Za-z0-9])(?:I?Q\d\w*|MXFP4\w*|BF16|F16|F32)(?![A-Za-z0-9])", re.I)
_SHARD = re.compile(r"-(\d{5})-of-\d{5}\.gguf$", re.I)


async def answer(call: Call, address: RegistryAddress) -> web.StreamResponse:
    """Raises: Refused, Busy, UpstreamError, StoreError."""
    snapshot = await call.site.snapshot(address.repo, None, patience_s=resolve.PATIENCE_S)
    if address.verb == "manifests":
        return _manifest(call, snapshot, address.name)
    return await _blob(call, snapshot, Digest(address.name))


def retell(response: web.Response) -> web.Response:
    """An error as a registry's clients read it.

    Ollama says "file does not exist" to every 404 and shows the body of a 403 (server/images.go,
    makeRequestWithRetry), so a refusal that somebody can lift is a 403 here.
    """
    assert isinstance(response.body, bytes)
    message = json.loads(response.body)["error"]
    code = response.headers.get("X-Error-Code", "")
    denied = code in ("RepoNotFound", "RevisionNotFound")
    body = {"errors": [{"code": "DENIED" if denied else code, "message": message}]}
    kept = {k: v for k, v in response.headers.items() if not k.startswith("Content-")}
    return web.Response(
        status=403 if denied else response.status,
        body=bodies.encode(body), content_type="application/json", headers=kept,
    )  # fmt: skip


def _manifest(call: Call, snapshot: Snapshot, tag: str) -> web.Response:
    model, projector = pick(snapshot, tag)
    splits = "llama-cpp" in call.request.headers.get("User-Agent", "").lower()
    if _SHARD.search(model.path) and not splits:
        raise InvalidName("tag", tag, "that model is split into several files; take a whole one")
    config = _config(snapshot, model)
    layers = [_layer(model, _MODEL)]
    shape: Json = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "digest": _digest(config), "mediaType": _CONFIG, "size": len(config),
        },
        "layers": layers,
        "ggufFile": _file(model),
    }  # fmt: skip
    if projector is not None:
        layers.append(_layer(projector, _PROJECTOR))
        shape["mmprojFile"] = _file(projector)
    body = bodies.encode(shape)
    headers = {
        "Content-Type": MANIFEST,
        "Docker-Content-Digest": _digest(body),
        "X-Repo-Commit": snapshot.commit,
    }
    return web.Response(body=body, headers=headers)


async def _blob(call: Call, snapshot: Snapshot, digest: Digest) -> web.StreamResponse:
    for entry in _ggufs(snapshot):
        if entry.digest == digest:
            headers = {**ready.headers_of(entry), "Docker-Content-Digest": digest}
            call.patience_s = PATIENCE_S
            head = Head.of(headers, entry.size, call.site.headers)
            return await resolve.answer(call, entry, head)
        config = _config(snapshot, entry)
        if _digest(config) == digest:
            return web.Response(
                body=config, content_type=_CONFIG, headers={"Docker-Content-Digest": digest}
            )
    raise EntryNotFound(snapshot.repo, snapshot.commit, digest)


def pick(snapshot: Snapshot, tag: str) -> tuple[Entry, Entry | None]:
    """The model that a tag means, and what makes it see, if there is such a file.

    Raises: EntryNotFound.
    """
    files = _ggufs(snapshot)
    models = [one for one in files if "mmproj" not in one.path.lower() and _is_first(one)]
    projector = next((one for one in files if "mmproj" in one.path.lower()), None)
    wanted = tag.lower().removesuffix(".gguf")
    for one in models:
        if one.path.rpartition("/")[2].lower().removesuffix(".gguf") == wanted:
            return one, projector
    for quant in (*_PREFERRED, "") if wanted == "latest" else (wanted,):
        for one in models:
            if not quant or quant.lower() in _quants(one):
                return one, projector
    raise EntryNotFound(snapshot.repo, snapshot.commit, f"{tag} (a GGUF file)")


def _ggufs(snapshot: Snapshot) -> list[Entry]:
    return sorted(
        (one for path, one in snapshot.files.items() if path.lower().endswith(".gguf")),
        key=lambda one: one.path,
    )


def _is_first(entry: Entry) -> bool:
    shard = _SHARD.search(entry.path)
    return shard is None or shard[1] == "00001"


def _quants(entry: Entry) -> list[str]:
    return [found.lower() for found in _QUANT.findall(entry.path)]


def _config(snapshot: Snapshot, model: Entry) -> bytes:
    """What Ollama shows about a model; made of nothing but the lock, so always the same bytes."""
    gguf = snapshot.info.get("gguf")
    family = gguf.get("architecture") if isinstance(gguf, dict) else None
    named = family if isinstance(family, str) and family else "unknown"
    quants = _QUANT.findall(model.path)
    return bodies.encode(
        {
            "model_format": "gguf",
            "model_family": named,
            "model_families": [named],
            "model_type": "",
            "file_type": quants[-1].upper() if quants else "unknown",
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [model.digest]},
        }
    )


def _layer(entry: Entry, media_type: str) -> Json:
    return {"digest": entry.digest, "mediaType": media_type, "size": entry.size}


def _file(entry: Entry) -> Json:
    shape: Json = {"rfilename": entry.path, "blobId": entry.git_oid, "size": entry.size}
    if entry.lfs:
        shape["lfs"] = wire.lfs_json(entry.digest, entry.size)
    return shape


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
