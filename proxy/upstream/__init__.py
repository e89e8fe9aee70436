"""Where missing bytes and metadata come from."""

from __future__ import annotations

from pathlib import Path

from proxy.config import Timeouts, UpstreamConfig
from proxy.upstream.base import Upstream
from proxy.upstream.cachedir import CacheDirUpstream
from proxy.upstream.hub import HubUpstream


def from_url(config: UpstreamConfig, timeouts: Timeouts) -> Upstream:
    """`https://huggingface.co`, `http://hub.lan`, `file:///mnt/usb/hub`. Raises: ValueError."""
    match config.url.scheme:
        case "https" | "http":
            return HubUpstream(config, timeouts)
        case "file":
            if config.url.host:
                raise ValueError(
                    f"write file:///{config.url.host}{config.url.path}: "
                    f"{config.url} has two slashes, so it names a host"
                )
            return CacheDirUpstream(Path(config.url.path))
        case other:
            raise ValueError(f"no upstream speaks {other!r}")
