"""How end-to-end tests are marked, and for which clients they run."""

from __future__ import annotations

import pytest

from tests.e2e.clients import ALL_HUBS, HUBS

# The first test waits for pip, which has a deadline of its own.
E2E = [pytest.mark.e2e, pytest.mark.timeout(120, func_only=True)]

every_client = pytest.mark.parametrize("client", HUBS, indirect=True)
every_hub = pytest.mark.parametrize("client", ALL_HUBS, indirect=True)  # what all have to do


def only(*names: str) -> pytest.MarkDecorator:
    """Run with these clients; the name of the test shows which."""
    return pytest.mark.parametrize("client", names, indirect=True)


# Clients that are no environments of their own, as docs/clients.md names them.
JS_HUB = "@huggingface/hub 2.17.5"
TRANSFORMERS_JS = "transformers.js 4.3.1"
ARIA2 = "aria2 1.36"
WGET = "wget 1.21"
CURL = "curl 7.88"
HFD = "hfd.sh (replayed)"
GIT = "git 2.39 + git-lfs 3.3"
LLAMA_CPP = "llama.cpp (replayed)"
RUST_05 = "Rust hf-hub 0.5 (replayed)"
RUST_11 = "Rust hf-hub 1.1 (replayed)"
TGI = "TGI (replayed)"
OLLAMA = "Ollama (replayed)"
CHROMIUM = "Chromium (fetch)"
