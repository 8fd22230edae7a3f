"""The command `lastcall`, which is also `python -m lastcall`."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    from .cli.entry import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
