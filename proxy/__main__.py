"""python -m proxy, and the `hubpin` command."""

from __future__ import annotations

from proxy.cli.main import build


def main() -> None:
    build()(prog_name="hubpin")


if __name__ == "__main__":
    main()
