"""Certificates that a TLS client should and should not accept, made once by the openssl command."""

from __future__ import annotations

import atexit
import shutil
import ssl
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

KINDS = ("good", "self-signed", "expired", "wrong-host")
_NAMES = "DNS:localhost,IP:127.0.0.1,IP:127.0.0.2"
_CONFIG = """\
[ca]
default_ca = own
[own]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = anything
unique_subject = no
copy_extensions = copy
[anything]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
"""


def server_context(kind: str) -> ssl.SSLContext:
    """One of `KINDS`."""
    folder = _folder()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{kind}.pem", folder / f"{kind}.key")
    return context


def ca_file() -> Path:
    """The authority that signed all but the self-signed certificate."""
    return _folder() / "ca.pem"


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fake-hub-tls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "openssl.cnf").write_text(_CONFIG.format(folder=folder))
    (folder / "index.txt").touch()
    _own(folder, "ca", "-extensions", "authority")
    _own(folder, "self-signed", "-addext", f"subjectAltName={_NAMES}")
    _signed(folder, "good", _NAMES, "20200101000000Z", "20991231000000Z")
    _signed(folder, "expired", _NAMES, "20200101000000Z", "20200102000000Z")
    _signed(folder, "wrong-host", "DNS:elsewhere.invalid", "20200101000000Z", "20991231000000Z")
    return folder


def _own(folder: Path, name: str, *options: str) -> None:
    """A certificate that vouches for itself."""
    _openssl(
        folder, "req", "-x509", *_new_key(folder, name), "-out", f"{folder}/{name}.pem",
        "-days", "3650", "-subj", f"/CN=fake hub {name}", *options,
    )  # fmt: skip


def _signed(folder: Path, name: str, names: str, start: str, end: str) -> None:
    request = f"{folder}/{name}.csr"
    _openssl(
        folder, "req", *_new_key(folder, name), "-out", request,
        "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}",
    )  # fmt: skip
    _openssl(
        folder, "ca", "-batch", "-notext", "-in", request, "-out", f"{folder}/{name}.pem",
        "-cert", f"{folder}/ca.pem", "-keyfile", f"{folder}/ca.key",
        "-startdate", start, "-enddate", end,
    )  # fmt: skip


def _new_key(folder: Path, name: str) -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    return (*curve, "-keyout", f"{folder}/{name}.key")


def _openssl(folder: Path, command: str, *arguments: str) -> None:
    subprocess.run(
        ["openssl", command, "-config", f"{folder}/openssl.cnf", *arguments],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
