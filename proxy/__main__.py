"""python -m proxy, and the `hubpin` command."""

from __future__ import annotations

import gc


def main() -> None:
    # Looking for garbage among a hundred thousand objects that stay takes a fifth of the imports.
    gc.disable()
    from proxy.cli.main import build  # not before that

    gc.freeze()
    gc.enable()
    build()(prog_name="hubpin")


if __name__ == "__main__":
    main()
