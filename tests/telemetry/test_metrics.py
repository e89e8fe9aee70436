"""Numbers of several processes, added up."""

from __future__ import annotations

import re

from proxy.telemetry import metrics
from proxy.telemetry.metrics import Tally

OK = (("status", "200"),)
ODD = (("status", "418"),)


def shown(text: bytes, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text.decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def other(**more: float) -> Tally:
    """A process that answered."""
    return {
        ("hubpin_requests_total", OK): 5.0,
        ("hubpin_requests_total", ODD): 1.0,
        ("hubpin_requests_created", OK): 7.0,
        ("hubpin_connections", ()): 2.0,
        ("hubpin_fills_running", ()): 9.0,
    } | {(name, ()): value for name, value in more.items()}


def test_what_all_count_is_added_and_the_rest_is_ours() -> None:
    alone = metrics.render()
    both = metrics.render((other(), other()))
    for sample, more in (
        ('hubpin_requests_total{status="200"}', 10),
        ('hubpin_requests_total{status="418"}', 2),
        ("hubpin_connections", 4),
        ("hubpin_fills_running", 0),
    ):
        assert shown(both, sample) == shown(alone, sample) + more, sample
    assert shown(both, 'hubpin_requests_created{status="200"}') == 7


def test_one_process_that_cannot_write_is_enough_to_say_so() -> None:
    others = (other(hubpin_audit_failing=1.0), other(hubpin_audit_failing=1.0))
    assert shown(metrics.render(others), "hubpin_audit_failing") == 1
    assert shown(metrics.render((other(hubpin_audit_failing=0.0),)), "hubpin_audit_failing") == 0


def test_of_processes_that_ended_only_what_they_counted_is_kept() -> None:
    left = metrics.counted((other(), metrics.counted((other(),))))
    assert left[("hubpin_requests_total", OK)] == 10
    assert ("hubpin_connections", ()) not in left


def test_what_a_process_tells_is_what_it_shows() -> None:
    metrics.count_request(200)
    own = metrics.tally()
    twice = metrics.render((own,))
    sample = 'hubpin_requests_total{status="200"}'
    assert shown(twice, sample) == 2 * own[("hubpin_requests_total", OK)]
