"""Every metric. Labels have bounded values: never a repository, a path or an address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

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
WORKERS = Gauge("hubpin_workers", "Processes that answer clients.", registry=REGISTRY)

# What every process that answers has numbers of. All others are the main process's alone.
_ADDED = frozenset(
    {
        "hubpin_requests",
        "hubpin_connections",
        "hubpin_sent_bytes",
        "hubpin_handed_bytes",
        "hubpin_integrity_failures",
    }
)
_WORST = frozenset({"hubpin_audit_failing"})

# Sample and its labels → value, of one process.
Tally = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@lru_cache(maxsize=128)
def _requests(status: int) -> Counter:
    return REQUESTS.labels(str(status))


def count_request(status: int) -> None:
    """On the path of every answer, so the look-up of the label is kept."""
    _requests(status).inc()


def tally() -> Tally:
    """What this process counted of what all count."""
    families = (one for one in REGISTRY.collect() if one.name in _ADDED | _WORST)
    return {_key(sample): sample.value for one in families for sample in one.samples}


def counted(tallies: Iterable[Tally]) -> Tally:
    """What is left of processes that ended: what they counted, and not what they were doing."""
    return _added(
        {key: value for key, value in one.items() if key[0].endswith(("_total", "_created"))}
        for one in tallies
    )


def render(others: Iterable[Tally] = ()) -> bytes:
    """All metrics in Prometheus' text format, with what other processes of ours counted."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Sum(_added(others)))
    return generate_latest(registry)


class _Sum(Collector):
    """This process and others, as one."""

    def __init__(self, others: Tally) -> None:
        self._others = others

    def collect(self) -> Iterator[Metric]:
        for family in REGISTRY.collect():
            names = {f"{family.name}{ending}" for ending in ("", "_total", "_created")}
            theirs = {key: value for key, value in self._others.items() if key[0] in names}
            if theirs and family.name in _ADDED | _WORST:
                own = {_key(sample): sample.value for sample in family.samples}
                family.samples = [
                    Sample(name, dict(labels), value)
                    for (name, labels), value in _added((own, theirs)).items()
                ]
            yield family


def _added(tallies: Iterable[Tally]) -> Tally:
    both: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for one in tallies:
        for key, value in one.items():
            if key not in both:
                both[key] = value
            elif key[0].endswith("_created"):  # when a counter began, in Unix seconds
                both[key] = min(both[key], value)
            elif key[0] in _WORST:
                both[key] = max(both[key], value)
            else:
                both[key] += value
    return both


def _key(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
    return sample.name, tuple(sorted(sample.labels.items()))
