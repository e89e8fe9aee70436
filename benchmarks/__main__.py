"""`python -m benchmarks [--quick] [--rounds=N] [name …]`: all measurements, or some of them."""

from __future__ import annotations

import importlib
import signal
import sys
import time

from benchmarks import rig

NAMES = ("small", "snapshot", "start", "warm", "readers", "disk", "fills", "slow", "cold")


def main(arguments: list[str]) -> int:
    """0 if all of them ran, whatever the figures are: a busy machine is no failure."""
    flags = [one for one in arguments if one == "--quick" or one.startswith("--rounds=")]
    names = [one for one in arguments if one not in flags] or list(NAMES)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"no such measurement: {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return 2
    began = time.monotonic()
    print("machine:", ", ".join(f"{key} {value}" for key, value in rig.machine().items()))
    failed = []
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        try:
            rig.main(module.measure, flags)
        except (RuntimeError, OSError) as e:
            print(f"\n### {name}: failed: {e}", flush=True)
            failed.append(name)
    print(f"\n{time.monotonic() - began:.0f} s in all; load now {rig.machine()['load']}")
    return 1 if failed else 0


if __name__ == "__main__":
    # Servers are ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
