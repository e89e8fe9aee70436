"""python -m tests.e2e.without_misled …: the mirror without the rule that protects the misled.

For the test that shows that the end-to-end tests would notice: a client that was given a wrong
beginning is then given a right end, and believes it.
"""

from __future__ import annotations

from proxy.__main__ import main
from proxy.pins.lock import Entry
from proxy.server import resolve
from proxy.server.ranges import Slice
from proxy.server.site import Call


def _could_complete_a_lie(call: Call, entry: Entry, wanted: Slice) -> bool:
    return False


if __name__ == "__main__":
    setattr(resolve, _could_complete_a_lie.__name__, _could_complete_a_lie)
    main()
