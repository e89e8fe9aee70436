"""Every metric. Labels have bounded values: never a repository, a path or an address."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

REGISTRY = CollectorRegistry()

REQUESTS = Counter("hubpin_requests_total", "Answers, by status.", ["status"], registry=REGISTRY)
CONNECTIONS = Gauge("hubpin_connections", "Clients' connections that are open.", registry=REGISTRY)
SENT_BYTES = Counter("hubpin_sent_bytes_total", "Bytes of blobs sent.", registry=REGISTRY)
HANDED_BYTES = Counter(
    "hubpin_handed_bytes_total", "Bytes of blobs that nginx was told to send.", registry=REGISTRY
)
FILLS = Counter("hubpin_fills_total", "Downloads that ended.", ["outcome"], registry=REGISTRY)
FILLS_RUNNING = Gauge("hubpin_fills_running", "Downloads in flight.", registry=REGISTRY)
FILLED_BYTES = Counter(
    "hubpin_filled_bytes_total", "Bytes fetched and verified.", registry=REGISTRY
)
INTEGRITY_FAILURES = Counter(
    "hubpin_integrity_failures_total",
    "Bytes that were not the locked bytes, by where they came from.",
    ["source"],
    registry=REGISTRY,
)
CATALOG_STALE = Gauge(
    "hubpin_catalog_stale", "1 while a broken edit keeps the old catalog in force.",
    registry=REGISTRY,
)  # fmt: skip
PAIRS_UNLOCKED = Gauge(
    "hubpin_pairs_unlocked", "Pairs that are allowed and not locked.", registry=REGISTRY
)
PAIRS_DRIFTED = Gauge(
    "hubpin_pairs_drifted", "Pairs that mean another commit upstream.", registry=REGISTRY
)
AUDIT_FAILING = Gauge(
    "hubpin_audit_failing", "1 while the audit log cannot be written.", registry=REGISTRY
)
UPSTREAM_LIMITED = Counter(
    "hubpin_upstream_limited_total", "Answers 429 of upstreams: too many requests.",
    registry=REGISTRY,
)  # fmt: skip
WARM_MISSING = Gauge(
    "hubpin_warm_missing_bytes",
    "Bytes that were missing when the server last worked on a pair marked warm.",
    registry=REGISTRY,
)
DISK_FREE = Gauge(
    "hubpin_disk_free_bytes", "Free disk where the data directory lies.", registry=REGISTRY
)


@lru_cache(maxsize=128)
def _requests(status: int) -> Counter:
    return REQUESTS.labels(str(status))


def count_request(status: int) -> None:
    """On the path of every answer, so the look-up of the label is kept."""
    _requests(status).inc()


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
