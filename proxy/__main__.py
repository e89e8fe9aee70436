"""python -m proxy, and the `hubpin` command."""

from __future__ import annotations

import gc
import signal
import sys


def main() -> None:
    if "serve" in sys.argv:
        # Asked to reload before it has read anything, a server has nothing to do; the signal would
        # end it. `server/run.py` hears it from then on. The imports below take a second.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Looking for garbage among a hundred thousand objects that stay takes a sixth of the imports.
    gc.disable()
    from proxy.cli.main import build  # not before that

    gc.freeze()
    gc.enable()
    build()(prog_name="hubpin")


if __name__ == "__main__":
    main()
