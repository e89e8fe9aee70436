"""python -m tests.e2e.with_small_limit …: the mirror, taking 1 kB for what is 50 GB in earnest.

For the test that shows that clients which can do without a file's size get such a file.
"""

from __future__ import annotations

from proxy.__main__ import main
from proxy.server import resolve

if __name__ == "__main__":
    resolve.MAX_HTTP_DOWNLOAD = 1000
    main()
