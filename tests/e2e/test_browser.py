"""A page in a browser reads from the mirror, if the operator lets it."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import tools
from tests.e2e.marks import CHROMIUM, E2E
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.hub_process import HubProcess
from tests.fakes.rawclient import Answer
from tests.fakes.world import World

pytestmark = [*E2E, pytest.mark.usefixtures("programs")]

# What transformers.js does in a browser, and what it reads of the answers.
_PAGE = """<!doctype html><title>busy</title><pre id="said"></pre><script>
const mirror = "@MIRROR@", said = {};
async function ask(name, path, options) {
  try {
    const r = await fetch(mirror + path, options);
    const headers = {};
    for (const h of ["etag", "x-repo-commit", "content-range", "x-error-code"])
      headers[h] = r.headers.get(h);
    said[name] = {status: r.status, size: (await r.arrayBuffer()).byteLength, headers};
  } catch (e) { said[name] = {error: String(e)}; }
}
(async () => {
  await ask("file", "/acme/tiny/resolve/main/config.json");
  await ask("range", "/acme/tiny/resolve/main/model.safetensors", {headers: {Range: "bytes=0-9"}});
  await ask("token", "/api/models/acme/tiny", {headers: {Authorization: "Bearer hf_of_a_page"}});
  await ask("refused", "/api/models/acme/other");
  document.getElementById("said").textContent = JSON.stringify(said);
  document.title = "done";
})();
</script>"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The address of an origin that serves the files of `tmp_path/www`."""
    (tmp_path / "www").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def visit(tmp_path: Path, page: str, mirror: str) -> Any:
    (tmp_path / "www" / "page.html").write_text(_PAGE.replace("@MIRROR@", mirror))
    done = tools.run(
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=10000",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--dump-dom",
        f"{page}/page.html",
        home=tmp_path,
    )  # fmt: skip
    assert "<title>done" in done.stdout, done.stdout + done.stderr
    return json.loads(done.stdout.partition('id="said">')[2].partition("</pre>")[0])


@contextlib.contextmanager
def serving(folder: Path, upstream: HubProcess, *settings: str) -> Iterator[MirrorProcess]:
    mirror = MirrorProcess(folder, upstream.url, ["acme/tiny@main"])
    with mirror.config.open("a") as config:
        config.writelines(f"{line}\n" for line in settings)
    mirror.lock_all()
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.stop()


@pytest.mark.case("CORS", client=CHROMIUM)
def test_a_page_of_another_origin_reads_what_is_served(
    honest: HubProcess, tmp_path: Path, page: str, world: World
) -> None:
    with serving(tmp_path / "mirror", honest, "cors: true") as mirror:
        said = visit(tmp_path, page, mirror.url)
        commit = world.repo("acme/tiny").at("main")
        assert said["file"]["status"] == 200
        assert said["file"]["size"] == commit.files["config.json"].size
        assert said["file"]["headers"]["x-repo-commit"] == commit.sha
        assert said["file"]["headers"]["etag"] == f'"{commit.files["config.json"].etag}"'
        assert said["range"]["status"] == 206
        assert said["range"]["headers"]["content-range"].startswith("bytes 0-9/")
        assert said["token"]["status"] == 200
        assert said["refused"]["status"] == 404
        assert said["refused"]["headers"]["x-error-code"] == "RepoNotFound"
        preflight = Answer(
            f"{mirror.url}/api/models/acme/tiny", method="OPTIONS",
            headers={
                "Origin": page, "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization",
                "Access-Control-Request-Private-Network": "true",
            },
        )  # fmt: skip
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-headers"] == "authorization"
        assert preflight.headers["access-control-allow-private-network"] == "true"


@pytest.mark.case("CORS", client=CHROMIUM)
def test_nothing_can_be_read_unless_the_operator_says_so(
    site: MirrorProcess, tmp_path: Path, page: str
) -> None:
    said = visit(tmp_path, page, site.url)
    assert all("TypeError" in one["error"] for one in said.values()), said
    assert Answer(f"{site.url}/", method="OPTIONS").status == 405
